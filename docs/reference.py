"""The pages that are made while the site is built: one for each public name, from its docstring.

MkDocs calls `on_files` (`hooks` in mkdocs.yml): it adds these pages, and those files of the
repository that are pages, too (`BORROWED`), and completes the navigation.
"""

import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import secondorder as so

ROOT = Path(__file__).parents[1]
ROOMS = ("curvature", "solvers", "trust", "losses", "operators", "spectrum", "tree", "log")
GALLERY = ROOT / "results" / "pictures" / "gallery.html"  # where it has been drawn
BORROWED = {"contributing.md": "CONTRIBUTING.md", "changelog.md": "CHANGELOG.md"}
SEE_ALSO = """
See also: [its parts beside those of the others](../explain/methods.md), [memory and cost of a
step](../start/which.md#by-what-a-step-needs), [trust and damping](../explain/trust.md).
"""
TITLES = {
    "interop": "Optax transformations",
    "layers": "curvature",
    "linear_systems": "operators",
    "notices": "solving",
    "optimize": "solving",
    "quadratic": "operators",
    "state": "Optax transformations",
    "transform": "Optax transformations",
}


class Name(NamedTuple):
    """A public name: `so.kfac`, or `so.solvers.cg` of a room."""

    path: str
    thing: Any

    @property
    def group(self) -> str:
        """The heading under which it is listed."""
        parts = self.path.split(".")
        if len(parts) == 3:
            return f"so.{parts[1]}"
        room = self.thing.__module__.split(".")[1]
        return f"so: {TITLES.get(room, room)}"

    @property
    def file(self) -> str:
        """Its page. `total` and `Total` would be one file where case does not count."""
        *rooms, name = self.path.removeprefix("so.").split(".")
        kind = "-class" if name[0].isupper() else ""
        return "/".join(["reference", *rooms, f"{name}{kind}.md"])

    @property
    def page(self) -> str:
        """The text of its page."""
        qualified = self.path.replace("so.", f"{so.__name__}.", 1)
        text = f"::: {qualified}\n    options:\n      heading: {self.path}\n"
        return text + SEE_ALSO if self.group == "so: methods" else text


def public_names() -> list[Name]:
    """Every public name, except modules and plain values."""
    names = [Name(f"so.{name}", getattr(so, name)) for name in so.__all__]
    for room in ROOMS:
        module = getattr(so, room)
        known = getattr(module, "__all__", [n for n in vars(module) if not n.startswith("_")])
        own = [Name(f"so.{room}.{name}", getattr(module, name)) for name in known]
        names += [n for n in own if getattr(so, n.path.split(".")[2], None) is not n.thing]
    return sorted((n for n in names if _is_ours(n.thing)), key=lambda n: n.path.lower())


def _is_ours(thing: Any) -> bool:
    """A function or a class of the library, and no alias of a type."""
    known = inspect.isfunction(thing) or inspect.isclass(thing)
    return known and thing.__module__.startswith(so.__name__)


def first_sentence(thing: Any) -> str:
    """The first paragraph of a docstring up to its first full stop."""
    paragraph = inspect.cleandoc(inspect.getdoc(thing) or "").split("\n\n")[0]
    text = " ".join(paragraph.split())
    text = re.sub(r":\w+:`(?:~?[\w.]*\.)?(\w+)`", r"`\1`", text).replace("``", "`")
    sentence = re.match(r".*?(?<!et al)[.](?=\s|$)", text)
    return sentence[0] if sentence else text


def groups() -> dict[str, list[Name]]:
    """The public names by heading: those of the package itself first."""
    found: dict[str, list[Name]] = {}
    for name in sorted(public_names(), key=lambda n: (not n.group.startswith("so:"), n.group)):
        found.setdefault(name.group, []).append(name)
    return found


def index() -> str:
    """The page that lists every public name with its first sentence."""
    lines = ["# Public names", "", "`import secondorder as so`. Each name has a page.", ""]
    for group, names in groups().items():
        lines += [f"## {group}", ""]
        if not group.startswith("so:"):
            lines += [first_sentence(getattr(so, group.removeprefix("so."))), ""]
        lines += ["| name | |", "|---|---|"]
        for name in names:
            link = name.file.removeprefix("reference/")
            lines.append(f"| [`{name.path}`]({link}) | {first_sentence(name.thing)} |")
        lines.append("")
    return "\n".join(lines)


def borrowed(text: str) -> str:
    """A file of the repository as a page: its links to `docs/` are links between pages."""
    return text.replace("](docs/", "](")


def pages() -> dict[str, str]:
    """All pages that are made, by file."""
    made = {name.file: name.page for name in public_names()}
    made["reference/index.md"] = index()
    for file, source in BORROWED.items():
        made[file] = borrowed((ROOT / source).read_text())
    return made


def on_files(files: Any, config: Any) -> Any:
    """Called by MkDocs with the files that it found: adds the pages, and completes `nav`."""
    from mkdocs.structure.files import File

    for file, text in pages().items():
        files.append(File.generated(config, file, content=text))
    if GALLERY.exists():
        files.append(File.generated(config, "explain/pictures.html", abs_src_path=str(GALLERY)))
    names = [{group: [{n.path: n.file} for n in names]} for group, names in groups().items()]
    known = {"reference": ["reference/index.md", *names]}
    for folder in ("recipes", "coming-from", "studies", "notes"):
        found = [
            f.src_uri for f in files.documentation_pages() if f.src_uri.startswith(f"{folder}/")
        ]
        # The page `index.md` of a folder is that of the section.
        known[folder] = sorted(found, key=lambda uri: (not uri.endswith("/index.md"), uri))
    config.nav = list(_completed(config.nav, known))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Called by MkDocs for each page."""
    file = page.file.src_uri
    if re.fullmatch(r"results/(?!comparison|index)\w+\.md", file):
        page.meta["hide"] = ["toc"]  # its room is for wide tables
    if file == "explain/gallery.md" and GALLERY.exists():
        return f"{markdown}\n## The whole gallery\n\n[All pictures, with sliders](pictures.html).\n"
    return markdown


def _completed(nav: list[Any], known: dict[str, list[Any]]) -> Iterator[Any]:
    """The entries of `nav`, with pages in place of the names of folders; none for an empty one."""
    for entry in nav:
        if isinstance(entry, str):
            yield entry
            continue
        ((title, below),) = entry.items()
        pages = (
            list(_completed(below, known)) if isinstance(below, list) else known.get(below, below)
        )
        if pages:
            yield {title: pages}
