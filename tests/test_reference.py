"""The page of public names is what the docstrings say today."""

import importlib.util
from pathlib import Path

import secondorder as so

SCRIPT = Path(__file__).parents[1] / "docs" / "reference.py"


def reference():
    spec = importlib.util.spec_from_file_location("reference", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_of_public_names_is_up_to_date():
    script = reference()
    assert script.PAGE.read_text() == script.page(), "run `python docs/reference.py`"


def test_every_public_name_is_on_it_with_a_sentence():
    page = reference().page()
    rooms = {"curvature", "losses", "operators", "solvers", "spectrum", "tree", "trust"}
    for name in set(so.__all__) - rooms - {"__version__"}:
        (row,) = [
            line
            for line in page.splitlines()
            if line.startswith((f"| `so.{name}`", f"| `so.{name}("))
        ]
        assert len(row.split(" | ")[1]) > 10, row


def test_a_first_sentence_ends_at_its_full_stop_and_not_within():
    script = reference()

    def thing():
        """``|x|`` of :func:`secondorder.tree.norm` (Martens et al. 2012), 1.5 of it. And more."""

    assert script.first_sentence(thing) == r"`\|x\|` of `norm` (Martens et al. 2012), 1.5 of it."
