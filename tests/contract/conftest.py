"""The order of these tests: row by row through all the files.

So the rules of a method share its compilations, also where each process takes a part of the list.
"""

from pathlib import Path

from contract.table import METHODS

HERE = Path(__file__).parent
PLACES = {name: place for place, name in enumerate(METHODS)}


def row_of(item) -> int:
    """The row that a test is of; −1 where it is of none."""
    call = getattr(item, "callspec", None)
    return PLACES.get(call.params.get("name"), -1) if call else -1


def pytest_collection_modifyitems(items):
    """Sort the tests of this folder by their rows, and leave the others where they are."""
    places = [i for i, item in enumerate(items) if HERE in item.path.parents]
    for i, item in zip(places, sorted((items[i] for i in places), key=row_of), strict=True):
        items[i] = item
