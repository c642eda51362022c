"""What a visitor expects: what is shipped, how fast it starts, and that its parts agree."""

import ast
import functools
import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
from hatchling.builders.wheel import WheelBuilder

import secondorder

ROOT = Path(__file__).parents[1]
VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]


def files_of_the_repository() -> list[Path]:
    """Every file that git tracks, or would."""
    listing = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    git = shutil.which("git") and subprocess.run(listing, cwd=ROOT, capture_output=True, text=True)
    if not git or git.returncode:
        pytest.skip("this is no git checkout")
    return [file for name in git.stdout.split("\0") if name and (file := ROOT / name).is_file()]


def test_the_wheel_holds_secondorder_alone(tmp_path):
    (wheel,) = WheelBuilder(str(ROOT)).build(directory=str(tmp_path), versions=["standard"])
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0] for name in names} == {
        "secondorder",
        f"secondorder-{VERSION}.dist-info",
    }
    assert {"secondorder/__init__.py", "secondorder/py.typed", "secondorder/citations.bib"} <= set(
        names
    )
    assert any(name.endswith("/LICENSE") for name in names)
    sources = {str(file.relative_to(ROOT)) for file in (ROOT / "secondorder").rglob("*.py")}
    assert sources == {name for name in names if name.endswith(".py")}


def test_no_file_holds_the_marks_of_an_unfinished_merge():
    ends = {".py", ".md", ".toml", ".yml", ".js", ".css", ".cff"}
    folders = [ROOT / name for name in ("docs", "experiments", "secondorder", "tests")]
    files = [*ROOT.glob("*"), *(file for folder in folders for file in folder.rglob("*"))]
    texts = {file: file.read_text() for file in files if file.is_file() and file.suffix in ends}
    assert len(texts) > 100
    marks = ("<" * 7 + " ", ">" * 7 + " ")
    marked = [str(f) for f, text in texts.items() if any("\n" + mark in text for mark in marks)]
    assert marked == []


@pytest.mark.slow
def test_importing_takes_less_than_two_fifths_of_what_jax_and_optax_take(tmp_path):
    # In processor time, so that a busy machine does not count, from bytecode as after a first run.
    environment = os.environ | {"PYTHONDONTWRITEBYTECODE": "", "PYTHONPYCACHEPREFIX": str(tmp_path)}
    code = (
        "from time import process_time as now; a = now(); import jax, optax; b = now(); "
        "import secondorder; print((now() - b) / (b - a))"
    )
    command = [sys.executable, "-c", code]
    run = functools.partial(subprocess.check_output, command, cwd=ROOT, text=True, env=environment)
    shares = [float(run()) for _ in range(4)]
    assert min(shares) < 0.4, shares


def test_public_names_exist_and_are_listed_once():
    assert len(secondorder.__all__) == len(set(secondorder.__all__))
    assert [name for name in secondorder.__all__ if not hasattr(secondorder, name)] == []


def test_the_version_is_the_same_everywhere():
    assert getattr(secondorder, "__version__", VERSION) == VERSION
    assert f"\nversion: {VERSION}\n" in (ROOT / "CITATION.cff").read_text()
    assert f"version = {{{VERSION}}}" in secondorder.citation("newton")
    changes = re.findall(r"^## \[(.+?)\]", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert VERSION in changes[:2], "CHANGELOG.md has no section for this version"


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
@pytest.mark.parametrize(
    "target",
    [
        *("compare", "test", "test-docs", "test-experiments", "test-gallery", "portable", "slow"),
        *("lint", "docs", "package", "clean", "help"),
    ],
)
def test_make_knows_the_target(target, tmp_path):
    command = ["make", "--dry-run", f"VENV={tmp_path}/venv", target]
    # What an outer make passes on would be taken for this one's own settings.
    env = {k: v for k, v in os.environ.items() if k not in {"MAKEFLAGS", "MAKEOVERRIDES", "MFLAGS"}}
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    if target not in {"clean", "help"}:
        assert "pip install" in done.stdout, "the target does not install what it needs"


@pytest.mark.skipif(shutil.which("bash") is None, reason="bash is not installed")
def test_the_ci_script_is_executable_and_parses():
    script = ROOT / ".ci" / "run"
    assert os.access(script, os.X_OK)
    subprocess.run(["bash", "-n", script], check=True)


MACHINE_PATH = re.compile(
    r"(?<![\w.~/-])/(?:home|Users|root|work|mnt|opt|tmp|var/tmp|private/var)/\w"
)


def test_no_file_names_a_path_of_someones_machine():
    found = []
    for file in files_of_the_repository():
        try:
            lines = file.read_text().splitlines()
        except UnicodeDecodeError:
            continue  # a picture
        for number, line in enumerate(lines, 1):
            if path := MACHINE_PATH.search(line):
                found.append(f"{file.relative_to(ROOT)}:{number} {path.group()}")
    assert found == []


@pytest.mark.parametrize("code", ["open('" + "/home" + "/ada/data')", "see " + "/tmp" + "/x.npz"])
def test_the_search_for_machine_paths_finds_one(code):
    assert MACHINE_PATH.search(code)


@pytest.mark.parametrize("code", ["#!/usr/bin/env bash", "https://a.org/home/ada", "work/step"])
def test_the_search_for_machine_paths_leaves_other_text_alone(code):
    assert not MACHINE_PATH.search(code)


def test_nothing_flips_the_global_x64_switch():
    switch = re.compile("jax_enable" + "_x64['\"]|JAX_ENABLE" + "_X64")
    sources = [*(ROOT / "secondorder").rglob("*.py"), *(ROOT / "tests").rglob("*.py")]
    assert [file for file in sources if switch.search(file.read_text())] == []


TOLERANCES = {"abs", "atol", "rel", "rtol"}
COMPARISONS = {"allclose", "assert_allclose", "isclose"}


def fixed_tolerances(code: str) -> list[int]:
    """The lines where a tolerance of 1e-9 or less is a number, not a rule."""
    given = []
    for node in ast.walk(ast.parse(code)):
        match node:
            case ast.Call(func=ast.Name(id=name) | ast.Attribute(attr=name), args=args):
                given += [x.value for x in node.keywords if x.arg in TOLERANCES]
                given += args[2:4] if name in COMPARISONS else []
            case ast.arguments(args=args, defaults=defaults):
                named = zip(args[len(args) - len(defaults) :], defaults, strict=True)
                given += [x for arg, x in named if arg.arg in TOLERANCES]
            case ast.Compare(left=ast.Call(func=ast.Attribute(attr="relative_error"))):
                given += node.comparators
    numbers = [x for value in given for x in ast.walk(value) if isinstance(x, ast.Constant)]
    return sorted(x.lineno for x in numbers if isinstance(x.value, float) and 0 < x.value <= 1e-9)


def test_no_tolerance_near_rounding_is_a_number():
    """Use ``assert_close`` or ``rounding`` of tests/tolerances.py, and say which condition."""
    files = (ROOT / "tests").rglob("*.py")
    found = {str(x.relative_to(ROOT)): fixed_tolerances(x.read_text()) for x in files}
    assert {file: lines for file, lines in found.items() if lines} == {}


@pytest.mark.parametrize(
    "code",
    [
        "np.testing.assert_allclose(a, b, rtol=1e-12)",
        "np.testing.assert_allclose(a, b, 1e-6, 1e-14)",
        "assert a == pytest.approx(b, abs=1e-9 * scale)",
        "def same(a, b, rtol=1e-10): ...",
        "assert oracles.relative_error(a, b) < 1e-12",
    ],
)
def test_the_search_for_fixed_tolerances_finds_one(code):
    assert fixed_tolerances(code) == [1]


@pytest.mark.parametrize(
    "code",
    [
        "np.testing.assert_allclose(a, b, rtol=1e-6, atol=rounding(10))",
        "np.testing.assert_allclose(1e-12 * a, b, rtol=0.0)",
        "solve(a, tol=1e-12, xtol=1e-15)",
        "assert oracles.relative_error(a, b) < 0.1",
    ],
)
def test_the_search_for_fixed_tolerances_leaves_other_numbers_alone(code):
    assert fixed_tolerances(code) == []
