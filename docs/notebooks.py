"""The notebooks: the tutorials and three studies, made from their pages and scripts, and run.

`make notebooks` runs this file, which writes `docs/notebooks/*.ipynb`. MkDocs calls its hooks: a
tutorial gets a link to its notebook, and a study is a page of its own, with what it printed.
"""

import json
import re
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "docs" / "notebooks"
SOURCES = {
    **{name: f"docs/start/{name}.md" for name in ("train", "fit", "curvature")},
    **{
        f"study_{name}": f"experiments/studies/{name}/run.py"
        for name in ("convex", "fit", "network")
    },
}
NEEDS = {"train": "flax scikit-learn", "fit": "matplotlib", "curvature": "scikit-learn"}
KERNEL = {"display_name": "Python 3", "language": "python", "name": "python3"}
LINK = re.compile(r"\]\((?!https?:|#|\.\./)")  # to a page in the same folder
TABLE = re.compile(r"^\| ?:-", re.MULTILINE)


def made(name: str) -> Any:
    """The notebook of a name, without outputs; the same one each time."""
    import jupytext

    source = SOURCES[name]
    text = (ROOT / source).read_text()
    notebook = jupytext.reads(text, fmt="md" if source.endswith(".md") else "py:percent")
    needs = "It needs a clone of the repository, and there `pip install -e '.[experiments]'`."
    if name in NEEDS:
        needs = f"Beside the library it needs `pip install {NEEDS[name]}`."
    title, words = notebook.cells[0].source.split("\n", 1)
    notebook.cells[0].source = f"{title}\n\n*Made from `{source}`. {needs}*\n{words}"
    for number, cell in enumerate(notebook.cells):
        cell.id, cell.metadata = f"cell-{number}", {}
        if cell.cell_type == "markdown":
            words = re.sub(r"<!--.*?-->\n*", "", cell.source, flags=re.DOTALL)
            cell.source = LINK.sub("](../start/", words) if source.endswith(".md") else words
    notebook.metadata = {"kernelspec": KERNEL, "language_info": {"name": "python"}}
    notebook.nbformat, notebook.nbformat_minor = 4, 5
    return notebook


def played(notebook: Any) -> Any:
    """The notebook with the outputs of a run in an empty folder, without what goes to `stderr`."""
    import nbclient

    with tempfile.TemporaryDirectory() as folder:
        client = nbclient.NotebookClient(
            notebook, timeout=900, kernel_name="python3", resources={"metadata": {"path": folder}}
        )
        client.execute()
    for cell in notebook.cells:
        cell.metadata = {}  # the times of the run
        if cell.cell_type == "code":
            cell.outputs = [one for one in cell.outputs if one.get("name") != "stderr"]
    notebook.metadata["language_info"] = {"name": "python"}
    return notebook


def page_of(notebook: dict) -> str:
    """A notebook as a page: words, code, and what it printed."""
    return "\n\n".join(part for cell in notebook["cells"] for part in _parts(cell)) + "\n"


def _parts(cell: dict) -> list[str]:
    text = "".join(cell["source"])
    if cell["cell_type"] == "markdown":
        return [text]
    printed = [_printed(output) for output in cell["outputs"]]
    return [f"```python\n{text}\n```", *filter(None, printed)]


def _printed(output: dict) -> str:
    data = output.get("data", {})
    if "image/png" in data:
        return f"![A figure](data:image/png;base64,{data['image/png'].strip()})"
    text = "".join(output.get("text") or data.get("text/plain", "")).strip("\n")
    return text if TABLE.search(text) else f"```text\n{text}\n```" if text else ""


def on_files(files: Any, config: Any) -> Any:
    """Called by MkDocs with the files that it found: adds a page for each study."""
    from mkdocs.structure.files import File

    for name in SOURCES:
        if name not in NEEDS:
            page = page_of(json.loads((FOLDER / f"{name}.ipynb").read_text()))
            uri = f"studies/{name.removeprefix('study_')}.md"
            files.append(File.generated(config, uri, content=page))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Called by MkDocs for each page: adds the link to its notebook below the title."""
    folder, _, name = page.file.src_uri.removesuffix(".md").partition("/")
    name = f"study_{name}" if folder == "studies" else name
    if folder not in ("start", "studies") or name not in SOURCES:
        return markdown
    link = f"[This page as a notebook](../notebooks/{name}.ipynb)"
    title, rest = markdown.split("\n", 1)
    return f"{title}\n\n{link}{{: download }}\n{rest}"


def main() -> None:
    """Make, run and write all."""
    import nbformat

    FOLDER.mkdir(exist_ok=True)
    for name in SOURCES:
        nbformat.write(played(made(name)), FOLDER / f"{name}.ipynb")
        print(f"docs/notebooks/{name}.ipynb")


if __name__ == "__main__":
    main()
