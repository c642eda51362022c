"""Every public name has a page with an example, and the pages of lists are complete."""

import importlib.util
import inspect
import re
from pathlib import Path

import jax.numpy as jnp
import pytest

import secondorder as so

DOCS = Path(__file__).parents[1] / "docs"


@pytest.fixture(scope="module")
def reference():
    spec = importlib.util.spec_from_file_location("reference", DOCS / "reference.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_public_name_has_a_page_of_its_own(reference):
    modules = {"curvature", "log", "losses", "operators", "solvers", "spectrum", "tree", "trust"}
    names = reference.public_names()
    paths = {name.path for name in names}
    assert paths >= {f"so.{name}" for name in set(so.__all__) - modules - {"__version__"}}
    for room in modules - {"tree"}:  # it has no list of its names
        module = getattr(so, room)
        for name in module.__all__:
            thing = getattr(module, name)
            ours = getattr(thing, "__module__", "").startswith("secondorder.")
            if ours and (inspect.isfunction(thing) or inspect.isclass(thing)):
                assert {f"so.{name}", f"so.{room}.{name}"} & paths
    pages = reference.pages()
    assert all(f"::: secondorder.{name.path[3:]}\n" in pages[name.file] for name in names)
    files = [name.file.lower() for name in names]  # as some file systems see them
    assert len(set(files)) == len(files)


def test_every_public_name_has_an_example_in_its_docstring(reference):
    without = [
        name.path
        for name in reference.public_names()
        if not re.search(r"\nExample:\n  >>> ", inspect.getdoc(name.thing) or "")
    ]
    assert without == []


def test_the_index_has_a_sentence_for_every_public_name(reference):
    index = reference.index()
    for name in reference.public_names():
        (row,) = [line for line in index.splitlines() if line.startswith(f"| [`{name.path}`](")]
        assert len(row.split(" | ")[1]) > 5, row


def test_a_first_sentence_ends_at_its_full_stop_and_not_within(reference):
    def thing():
        """``|x|`` of :func:`secondorder.tree.norm` (Martens et al. 2012), 1.5 of it. And more."""

    sentence = "`|x|` of `norm` (Martens et al. 2012), 1.5 of it."
    assert reference.first_sentence(thing) == sentence


def first_cells(page: str) -> list[str]:
    """What stands in backticks in the first cells of the tables of a page."""
    rows = [line for line in (DOCS / page).read_text().splitlines() if line.startswith("| ")]
    return [name for row in rows for name in re.findall(r"`([\w.]+)`", row.split(" | ")[0])]


def test_the_page_of_statuses_explains_each():
    assert set(so.Status.__members__) <= set(first_cells("explain/statuses.md"))
    assert set(so.solvers.Stop.__members__) <= set(first_cells("explain/diagnostics.md"))


def test_the_page_of_diagnostics_explains_each_key():
    p = jnp.ones(2)
    keys = so.diagnostics(so.newton().init(p)).keys()  # with a line search
    assert keys <= set(first_cells("explain/diagnostics.md"))
    assert {"learning_rate", "linesearch_steps"} <= keys


def test_the_page_of_methods_has_a_row_for_each():
    listed = set(first_cells("explain/methods.md"))
    methods = set(so.methods.__all__)
    assert methods <= listed


def test_the_navigation_has_every_page_that_is_not_in_a_folder_of_its_own():
    navigation = (DOCS.parent / "mkdocs.yml").read_text()
    for page in sorted(DOCS.glob("**/*.md")):
        name = str(page.relative_to(DOCS))
        if not name.startswith(("recipes/", "coming-from/", "notes/")):
            assert f" {name}\n" in navigation, f"add {name} to nav in mkdocs.yml"
