"""The notebooks are those of their sources, have outputs, and run."""

import importlib.util
import json
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[1] / "docs"
SPEC = importlib.util.spec_from_file_location("notebooks", DOCS / "notebooks.py")
notebooks = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(notebooks)

each = pytest.mark.parametrize("name", notebooks.SOURCES)


def cells_of(notebook) -> list[tuple[str, str]]:
    return [(cell["cell_type"], "".join(cell["source"])) for cell in notebook["cells"]]


def stored(name):
    return json.loads((notebooks.FOLDER / f"{name}.ipynb").read_text())


@each
def test_a_notebook_is_that_of_its_source(name):
    pytest.importorskip("jupytext")
    assert cells_of(stored(name)) == cells_of(notebooks.made(name)), "run `make notebooks`"


@each
def test_a_notebook_was_run_without_an_error_and_shows_nothing_of_the_machine(name):
    counts = [c["execution_count"] for c in stored(name)["cells"] if c["cell_type"] == "code"]
    assert counts == list(range(1, len(counts) + 1))
    text = (notebooks.FOLDER / f"{name}.ipynb").read_text()
    assert '"output_type": "error"' not in text and '"name": "stderr"' not in text
    assert "/tmp/" not in text and "/home/" not in text


def test_links_of_a_notebook_lead_to_pages():
    for name in notebooks.SOURCES:
        for kind, text in cells_of(stored(name)):
            links = notebooks.re.findall(r"\]\((?!https?:|#)([^)#]+)", text)
            pages = [link for link in links if not link.startswith("../reference/")]
            for link in pages if kind == "markdown" else ():
                assert (notebooks.FOLDER / link).exists(), (name, link)


SHORT = """from experiments.studies.race import Limits, limited
from pathlib import Path
limits = limited(Limits(seeds=1, steps=3, folder=Path("runs")))
limits.__enter__()"""


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of the machinery of kernels
@each
def test_a_notebook_runs(name, monkeypatch):
    for package in ("jupytext", "nbclient", "ipykernel"):
        pytest.importorskip(package)
    nbformat = pytest.importorskip("nbformat")
    monkeypatch.setenv("PYTHONPATH", str(DOCS.parent))
    notebook = notebooks.made(name)
    if name not in notebooks.NEEDS:
        notebook.cells.insert(0, nbformat.v4.new_code_cell(SHORT, id="limits"))
    played = notebooks.played(notebook)
    assert any(cell.get("outputs") for cell in played.cells)


def test_a_page_shows_tables_as_tables_and_other_text_as_it_is():
    outputs = [{"text": "a\n\n| b |\n|:---|\n| 1 |\n"}, {"data": {"text/plain": "x\n  y"}}, {}]
    code = {"cell_type": "code", "source": ["f(\n", ")"], "outputs": outputs}
    page = notebooks.page_of({"cells": [{"cell_type": "markdown", "source": "# T"}, code]})
    table = "a\n\n| b |\n|:---|\n| 1 |"
    assert page == f"# T\n\n```python\nf(\n)\n```\n\n{table}\n\n```text\nx\n  y\n```\n"
