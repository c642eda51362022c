"""Who may import whom, read from the syntax trees."""

import ast
import graphlib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

import secondorder

ROOT = Path(__file__).parents[1]
LIBRARY = ROOT / "secondorder"

# The floors from the ground up, and on each floor its rooms. A room is a folder, or a few files
# that belong together. A file imports from its own room and from the floors below: never upward,
# never from the room next door.
HOUSE = (
    ({"meshes"},),
    ({"linalg"},),
    ({"tree", "checks", "settings", "notices", "losses", "objectives"},),
    ({"layers"},),
    ({"operators"},),
    ({"quadratic", "step"},),
    ({"curvature"}, {"solvers"}, {"trust"}),
    ({"transform", "state"}, {"spectrum"}, {"linear_systems"}, {"stepsize"}),
    ({"methods"},),
    ({"optimize"},),  # its defaults are methods
    ({"interop"}, {"doctor"}, {"citations"}, {"log"}),
    ({"__init__"},),
)

READS_JAXPRS = {"make_jaxpr", "eqns", "jax.extend"}
THE_READERS_OF_JAXPRS = "layers/"  # one room, and no other
NOT_LAPACK = {"norm", "matrix_power"}


class Import(NamedTuple):
    """One imported module, or one name imported from a module."""

    module: str
    name: str | None
    line: int
    in_function: bool

    def resolve(self, modules) -> str:
        """The module that is read: `from package import name` may read `package.name`."""
        whole = f"{self.module}.{self.name}"
        return whole if whole in modules else self.module


def modules_of(library: Path) -> dict[str, Path]:
    """Dotted name → file, of every module of the library; a package goes by its own name."""
    modules = {}
    for file in sorted(library.rglob("*.py")):
        parts = file.relative_to(library.parent).with_suffix("").parts
        modules[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = file
    return modules


def imports_of(file: Path, package: str = "") -> Iterator[Import]:
    """All imports of a file; relative ones are resolved within `package`."""

    def walk(node, in_function):
        match node:
            case ast.Import():
                for alias in node.names:
                    yield Import(alias.name, None, node.lineno, in_function)
            case ast.ImportFrom():
                base = package.split(".")[: len(package.split(".")) - node.level + 1]
                module = ".".join([*(base if node.level else []), *filter(None, [node.module])])
                for alias in node.names:
                    yield Import(module, alias.name, node.lineno, in_function)
            case _:
                is_function = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
                for child in ast.iter_child_nodes(node):
                    yield from walk(child, in_function or is_function)

    yield from walk(ast.parse(file.read_text()), False)


def place_of(module: str) -> tuple[int, int] | None:
    """The floor and the room that a module of the library lives in."""
    top = module.split(".")[1] if "." in module else "__init__"
    for floor, rooms in enumerate(HOUSE):
        for room, names in enumerate(rooms):
            if top in names:
                return floor, room
    return None


def broken_floors(library: Path) -> list[str]:
    """One sentence per import that breaks a rule of the house."""
    modules = modules_of(library)
    reads = {module: set() for module in modules}
    broken = []
    for module, file in modules.items():
        here = place_of(module)
        if here is None:
            broken.append(f"{module} has no floor: give it one in HOUSE")
            continue
        package = module if file.name == "__init__.py" else module.rpartition(".")[0]
        for imported in imports_of(file, package):
            where = f"{file.relative_to(library.parent)}:{imported.line}"
            if imported.in_function:
                broken.append(f"{where} imports {imported.module} inside a function")
            if imported.module.split(".")[0] != library.name:
                continue
            target = imported.resolve(modules)
            reads[module].add(target)
            there = place_of(target)
            if there is not None and there[0] > here[0]:
                broken.append(f"{where} imports {target} from a floor above")
            if there is not None and there[0] == here[0] and there[1] != here[1]:
                broken.append(f"{where} imports {target} from the room next door")
    try:
        graphlib.TopologicalSorter(reads).prepare()
    except graphlib.CycleError as error:
        broken.append(f"a cycle: {' ← '.join(error.args[1])}")
    return broken


def private_uses(file: Path, public) -> list[str]:
    """One sentence per use of something in secondorder that is not a public name."""
    used, aliases = [], set()
    tree = ast.parse(file.read_text())
    for node in ast.walk(tree):
        match node:
            case ast.Import():
                for alias in node.names:
                    if alias.name == "secondorder":
                        aliases.add(alias.asname or alias.name)
                    elif alias.name.startswith("secondorder."):
                        used.append((node.lineno, alias.name))
            case ast.ImportFrom(module="secondorder", level=0):
                used += [(node.lineno, a.name) for a in node.names if a.name not in public]
            case ast.ImportFrom(module=str(module), level=0) if module.startswith("secondorder."):
                used.append((node.lineno, module))
    for node in ast.walk(tree):
        match node:
            case ast.Attribute(value=ast.Name(id=name), attr=attr) if name in aliases:
                if attr not in public:
                    used.append((node.lineno, attr))
            case ast.Attribute(value=ast.Attribute(value=ast.Name(id=name)), attr=attr):
                if name in aliases and attr.startswith("_"):
                    used.append((node.lineno, attr))
    # What every module has (`__file__`, `__version__`) is public.
    used = [(line, name) for line, name in used if not name.endswith("__")]
    return [f"{file}:{line} uses {name}, which is not public" for line, name in sorted(used)]


def names_in(file: Path) -> set[str]:
    """Every name a file mentions in code (not in prose), with dotted ones as `first.second`."""
    names = set()
    for node in ast.walk(ast.parse(file.read_text())):
        match node:
            case ast.Name(id=name):
                names.add(name)
            case ast.Attribute(value=ast.Name(id=base), attr=attr):
                names |= {attr, f"{base}.{attr}"}
            case ast.Attribute(attr=attr):
                names.add(attr)
    for imported in imports_of(file):
        path = ".".join(filter(None, [imported.module, imported.name])).split(".")
        names |= {path[-1], ".".join(path[:2])}
    return names


def files_that_mention(library: Path, names: set[str]) -> set[str]:
    """The files of a library that mention one of the names."""
    files = modules_of(library).values()
    return {str(f.relative_to(library)) for f in files if names & names_in(f)}


def test_every_import_stays_on_its_floor_or_goes_down():
    assert broken_floors(LIBRARY) == []


def test_experiments_use_public_names_only():
    files = sorted((ROOT / "experiments").rglob("*.py"))
    assert files, "no experiments were found"
    assert [use for file in files for use in private_uses(file, secondorder.__all__)] == []


def test_one_room_alone_reads_jaxprs():
    readers = files_that_mention(LIBRARY, READS_JAXPRS)
    assert readers, "nothing was found, so the search is at fault"
    assert [file for file in readers if not file.startswith(THE_READERS_OF_JAXPRS)] == []


def factorises(file: Path) -> bool:
    """Whether a file calls a factorisation of JAX, or imports from where they are."""
    calls = any(
        isinstance(node, ast.Attribute)
        and isinstance(node.value, ast.Attribute)
        and node.value.attr == "linalg"
        and node.attr not in NOT_LAPACK
        for node in ast.walk(ast.parse(file.read_text()))
    )
    return calls or any(
        each.module.startswith("jax.") and "linalg" in f"{each.module}.{each.name}".split(".")
        for each in imports_of(file)
    )


def test_one_room_alone_calls_lapack():
    """A call elsewhere would be batched by `vmap`, and two batches at once may wait for ever."""
    files = modules_of(LIBRARY).values()
    callers = {str(file.relative_to(LIBRARY)) for file in files if factorises(file)}
    assert callers, "nothing was found, so the search is at fault"
    assert [file for file in callers if not file.startswith("linalg/")] == []


@pytest.mark.parametrize(
    "code",
    [
        "import jax.numpy as jnp\njnp.linalg.eigh(x)",
        "import jax\njax.lax.linalg.cholesky(x)",
        "from jax.scipy.linalg import cho_solve",
        "import jax.scipy.linalg as jsl",
        "from jax.numpy import linalg",
    ],
)
def test_the_checker_sees_a_factorisation(code, tmp_path):
    file = tmp_path / "file.py"
    file.write_text(code)
    assert factorises(file)
    file.write_text("import jax.numpy as jnp\njnp.linalg.norm(x)")
    assert not factorises(file)


def test_the_modules_of_a_room_are_private():
    public = {"interop/lineax.py", "interop/optimistix.py"}  # imported where their library is there
    files = {str(file.relative_to(LIBRARY)) for file in LIBRARY.glob("*/*.py")}
    assert {file for file in files if not file.split("/")[1].startswith("_")} == public


def test_no_file_reaches_into_the_private_parts_of_jax():
    assert files_that_mention(LIBRARY, {"jax._src"}) == set()


def build(root: Path, files: dict[str, str]) -> Path:
    """A small library under `root`."""
    for name, text in files.items():
        file = root / "secondorder" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return root / "secondorder"


SOUND = {
    "__init__.py": "from secondorder.optimize import minimize\nfrom secondorder import curvature",
    "tree.py": "import jax",
    "losses/__init__.py": "from secondorder.losses._base import Loss",
    "losses/_base.py": "from secondorder import tree",
    "objectives/_objective.py": "from secondorder import losses, tree",
    "operators/__init__.py": "from secondorder.operators._dense import dense",
    "operators/_base.py": "from secondorder.tree import vdot",
    "operators/_dense.py": "from secondorder.operators._base import Operator",
    "quadratic.py": "import secondorder.tree as tree",
    "layers/__init__.py": "from . import _reader",
    "layers/_reader.py": "from jax import make_jaxpr\nfrom ..objectives import _objective",
    "curvature/__init__.py": "from secondorder import layers",
    "solvers/_cg.py": "from secondorder import tree",
    "methods/_newton.py": "from secondorder.solvers import _cg",
    "optimize/__init__.py": "from secondorder.methods._newton import newton",
}

BROKEN = {
    "an upward import": ({"tree.py": "from secondorder.operators import dense"}, "a floor above"),
    "an upward import of a file": ({"tree.py": "from secondorder import quadratic"}, "quadratic"),
    "a relative upward import": ({"solvers/_cg.py": "from ..optimize import x"}, "a floor above"),
    "an import of the whole library": ({"tree.py": "import secondorder as so"}, "a floor above"),
    "a sideways import": ({"solvers/_cg.py": "from secondorder.curvature import x"}, "next door"),
    "a method that minimizes": ({"methods/_newton.py": "from .. import optimize"}, "a floor above"),
    "an import inside a function": ({"tree.py": "def f():\n    import math"}, "inside a function"),
    "an import inside a method": (
        {"tree.py": "class A:\n    def f(self):\n        if self:\n            import math"},
        "inside a function",
    ),
    "a cycle in a room": ({"operators/_base.py": "from ._dense import dense"}, "a cycle"),
    "a cycle on the ground": ({"tree.py": "import secondorder.objectives._objective"}, "a cycle"),
    "a file without a floor": ({"helpers.py": ""}, "has no floor"),
}


def test_the_checker_accepts_a_sound_house(tmp_path):
    library = build(tmp_path, SOUND)
    assert broken_floors(library) == []
    assert files_that_mention(library, READS_JAXPRS) == {"layers/_reader.py"}


@pytest.mark.parametrize(("change", "sentence"), BROKEN.values(), ids=BROKEN)
def test_the_checker_finds(tmp_path, change, sentence):
    broken = broken_floors(build(tmp_path, SOUND | change))
    assert any(sentence in line for line in broken), broken


@pytest.mark.parametrize(
    "code",
    [
        "import jax\njax.make_jaxpr(f)",
        "from jax import make_jaxpr as trace",
        "f(x).jaxpr.eqns",
        "from jax.extend.core import Primitive",
        "from jax.extend import core",
        "import jax.extend.core",
    ],
)
def test_the_checker_finds_a_second_reader_of_jaxprs(tmp_path, code):
    library = build(tmp_path, SOUND | {"losses/_base.py": code})
    assert "losses/_base.py" in files_that_mention(library, READS_JAXPRS)


def test_the_checker_finds_a_private_name_in_an_experiment(tmp_path):
    sound, private = tmp_path / "sound.py", tmp_path / "private.py"
    sound.write_text("import secondorder as so\nfrom secondorder import hvp\nso.newton().init")
    assert private_uses(sound, {"hvp", "newton"}) == []
    private.write_text(
        "import secondorder as so\n"
        "import secondorder.tree\n"
        "from secondorder.methods import newton\n"
        "from secondorder import tree\n"
        "so.tree.vdot\n"
        "so.newton._state\n"
    )
    lines = [use.split(":")[1].split()[0] for use in private_uses(private, {"hvp", "newton"})]
    assert lines == ["2", "3", "4", "5", "6"]
