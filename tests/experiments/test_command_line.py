"""The command line answers in sentences and keeps what is finished."""

import csv
import json
import subprocess
import sys
from pathlib import Path

import pytest

from experiments import engine
from experiments.__main__ import run
from experiments.bar import Bar
from experiments.command_line import main
from experiments.compare.plan import Plan
from experiments.compare.run import Comparison
from experiments.optimizers import MAIN as MAIN_OPTIMIZERS
from experiments.optimizers import OPTIMIZERS
from experiments.problems import MAIN as MAIN_PROBLEMS
from experiments.problems import PROBLEMS
from experiments.store import NAME, Store
from experiments.tuning import TRIALS

ROOT = Path(__file__).parents[2]
QUICK = ["curve-fit", "--optimizers", "adam", "levenberg-marquardt", "--steps", "15"]


def sentence(capsys) -> str:
    """What went to standard error: one line, and no traceback."""
    text = capsys.readouterr().err.strip()
    assert "Traceback" not in text
    return text.splitlines()[-1]


def test_help_explains_the_command_and_ends_well(capsys):
    with pytest.raises(SystemExit) as ended:
        main(["--help"])
    assert ended.value.code == 0
    assert "compare" in capsys.readouterr().out


def test_list_names_every_problem_and_optimizer(capsys):
    assert main(["list"]) == 0
    listed = capsys.readouterr().out
    assert all(name in listed for name in [*PROBLEMS, *OPTIMIZERS])


@pytest.mark.parametrize(
    ("arguments", "problems", "optimizers"),
    [
        ([], MAIN_PROBLEMS, MAIN_OPTIMIZERS),
        (["--all"], PROBLEMS, OPTIMIZERS),
        (["heat"], ["heat"], MAIN_OPTIMIZERS),
        (["heat", "--all"], ["heat"], OPTIMIZERS),
        (["--all", "--optimizers", "adam"], PROBLEMS, ["adam"]),
    ],
)
def test_what_is_not_named_is_the_main_ones_or_all(
    arguments, problems, optimizers, tmp_path, monkeypatch
):
    plans = []

    def stopped(plan, *rest):
        plans.append(plan)
        raise KeyboardInterrupt

    monkeypatch.setattr("experiments.command_line.Comparison", stopped)
    assert main(["compare", *arguments, "--out", str(tmp_path)]) == 130
    assert [problem.name for problem in plans[0].problems] == list(problems)
    assert [optimizer.name for optimizer in plans[0].optimizers] == list(optimizers)


@pytest.mark.parametrize(
    ("arguments", "nearest"),
    [
        (["rosenbrok"], "rosenbrock"),
        (["logistic", "--optimizers", "newtn"], "newton"),
        (["logistic", "--optimizers", "levenberg"], "levenberg-marquardt"),
    ],
)
def test_an_unknown_name_is_answered_with_the_nearest(arguments, nearest, tmp_path, capsys):
    assert main(["compare", *arguments, "--out", str(tmp_path)]) == 2
    assert nearest in sentence(capsys)


@pytest.mark.parametrize("number", ["0", "-3", "2.5", "many"])
@pytest.mark.parametrize("option", ["--steps", "--seeds", "--jobs"])
def test_a_bad_number_is_answered_in_a_sentence(option, number, tmp_path, capsys):
    assert main(["compare", "rosenbrock", f"{option}={number}", "--out", str(tmp_path)]) == 2
    answer = sentence(capsys)
    assert option in answer
    assert number in answer


def test_a_folder_that_cannot_be_written_is_answered_in_a_sentence(tmp_path, capsys):
    occupied = tmp_path / "file"
    occupied.write_text("not a folder")
    assert main(["compare", "rosenbrock", "--out", str(occupied)]) == 2
    assert str(occupied) in sentence(capsys)


def test_a_comparison_leaves_everything_a_reader_needs(tmp_path, capsys):
    documents = tmp_path / "docs"
    assert main(["compare", *QUICK, "--out", str(tmp_path), "--publish", str(documents)]) == 0
    assert "../images/comparison/curve-fit-convergence.png" in (
        (documents / "comparison.md").read_text()
    )
    names = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()}
    expected = {"records.csv", "report.html", "report.md", "config.json", NAME}
    expected |= {f"summary.{end}" for end in ("csv", "tex")}
    kinds = ("convergence", "curvature", "fit", "sensitivity")
    figures = {f"figures/curve-fit-{kind}" for kind in kinds}
    assert expected | {f"{name}.{end}" for name in figures for end in ("png", "svg")} <= names
    printed = capsys.readouterr().out
    assert "Levenberg-Marquardt" in printed
    assert str(tmp_path / "report.html") in printed

    report = (tmp_path / "report.html").read_text()
    assert report.count("data:image/png;base64,") == len(kinds)
    assert 'src="http' not in report
    assert "<link" not in report
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["problems"]["curve-fit"]["seeds"] == [0]
    assert len(config["problems"]["curve-fit"]["tuning"]["adam"]["trials"]) == TRIALS
    assert {"command", "versions", "machine"} <= set(config)


def test_summary_and_records_tell_the_same(tmp_path):
    main(["compare", *QUICK, "--out", str(tmp_path)])
    records = read(tmp_path / "records.csv")
    for row in read(tmp_path / "summary.csv"):
        mine = [line for line in records if line["optimizer"] == row["optimizer"]]
        assert [int(line["step"]) for line in mine] == list(range(len(mine)))
        first = next((x for x in mine if float(x["measure"]) <= float(row["target"])), None)
        assert row["steps"] == ("" if first is None else f"{float(first['step'])}")
        assert int(row["reached"]) == (first is not None)
        if first is not None:
            assert float(row["seconds"]) == float(first["seconds"])
            assert float(row["gradient_equivalents"]) == float(first["gradient_equivalents"])


def read(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture
def counted(monkeypatch):
    """The runs really made, tuning trials apart; that of `stop_at` is interrupted."""
    made: list[str] = []
    real = engine.run
    control = {"stop_at": None}

    def run(prepared, seed, *rest, **options):
        if prepared.optimizer.name == control["stop_at"]:
            raise KeyboardInterrupt
        made.append(prepared.optimizer.name)
        return real(prepared, seed, *rest, **options)

    monkeypatch.setattr(engine, "run", run)
    return made, control


def test_an_interrupted_comparison_keeps_its_runs_and_goes_on(tmp_path, capsys, counted):
    made, control = counted
    control["stop_at"] = "levenberg-marquardt"
    assert main(["compare", *QUICK, "--out", str(tmp_path)]) == 130
    assert "Interrupted" in sentence(capsys)
    assert made == ["adam"]
    assert {line["optimizer"] for line in read(tmp_path / "records.csv")} == {"adam"}
    assert "interrupted" in (tmp_path / "report.html").read_text()

    control["stop_at"] = None
    assert main(["compare", *QUICK, "--out", str(tmp_path)]) == 0
    assert made == ["adam", "levenberg-marquardt"]
    both = {line["optimizer"] for line in read(tmp_path / "records.csv")}
    assert both == {"adam", "levenberg-marquardt"}


def test_other_settings_or_fresh_run_again(tmp_path, counted):
    made, _ = counted

    def compare(steps: int, fresh: bool = False) -> None:
        plan = Plan([PROBLEMS["rosenbrock"]], [OPTIMIZERS["levenberg-marquardt"]], steps=steps)
        Comparison(plan, Store(tmp_path, fresh), Bar(disable=True)).run()

    compare(2)
    compare(2)
    assert len(made) == 1
    compare(3)
    assert len(made) == 2
    compare(3, fresh=True)
    assert len(made) == 3


def test_an_interruption_before_the_first_run_says_so(tmp_path, capsys, counted):
    _, control = counted
    control["stop_at"] = "newton-cg"
    arguments = ["compare", "curve-fit", "--optimizers", "newton-cg", "--out", str(tmp_path)]
    assert main(arguments) == 130
    assert "before the first run" in sentence(capsys)


@pytest.mark.parametrize("package", ["tyro", "matplotlib", "pandas"])
def test_a_package_that_is_not_installed_is_named_with_what_to_install(package):
    # A fresh process, since here the packages are imported already; None stands for "not found".
    run_without = "import runpy, sys; sys.modules[{!r}] = None; runpy.run_module({!r}, {{}}, {!r})"
    code = run_without.format(package, "experiments", "__main__")
    command = [sys.executable, "-c", code, "list"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert f"needs the package '{package}'" in done.stderr
    assert "pip install -e '.[experiments" in done.stderr and not done.stdout


def test_a_missing_module_of_our_own_is_no_missing_package(monkeypatch):
    monkeypatch.setitem(sys.modules, "experiments.command_line", None)
    with pytest.raises(ModuleNotFoundError):
        run(["list"])
