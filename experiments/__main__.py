"""The command line: `python -m experiments --help`."""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro
from tqdm import tqdm

from experiments.benchmarks import BENCHMARKS
from experiments.benchmarks.tables import BAR, Request, page, save
from experiments.compare.plan import SEEDS, Plan
from experiments.compare.run import Comparison
from experiments.compare.tables import console
from experiments.compare.write import write
from experiments.errors import UserError, pick, whole_number
from experiments.optimizers import MAIN as MAIN_OPTIMIZERS
from experiments.optimizers import OPTIMIZERS
from experiments.pictures import LESSONS, make
from experiments.problems import MAIN as MAIN_PROBLEMS
from experiments.problems import PROBLEMS
from experiments.records import Store

INTERRUPTED = 130  # the exit code of a command ended by Ctrl-C

Number = Annotated[str | None, tyro.conf.arg(metavar="N")]


@dataclass(frozen=True)
class Compare:
    """Run optimizers on problems; draw and tabulate how fast they converge, and at what cost.

    Writes tables, figures and a report that opens alone. Finished runs are kept in the folder, so
    that an interrupted comparison goes on where it stopped.
    """

    problems: tyro.conf.Positional[
        Annotated[tuple[str, ...], tyro.conf.arg(metavar="PROBLEM")]
    ] = ()
    """Which problems; the main ones if none is named (`list` marks them)."""
    optimizers: Annotated[tuple[str, ...], tyro.conf.arg(metavar="NAME")] = ()
    """Which optimizers; the main ones if none is named."""
    all: tyro.conf.FlagCreatePairsOff[bool] = False
    """Where no problem is named all of them, and where no optimizer is named all of those."""
    seeds: Number = None
    """Seeds per optimizer where the start is random; 3 unless given."""
    steps: Number = None
    """Upper limit of steps per run; each problem has its own limits besides."""
    out: Annotated[Path, tyro.conf.arg(metavar="FOLDER")] = Path("results/compare")
    """The folder for the results."""
    fresh: tyro.conf.FlagCreatePairsOff[bool] = False
    """Run everything again, whatever the folder holds."""


@dataclass(frozen=True)
class List:
    """Show the problems, the optimizers and the pictures by name."""


def compare(options: Compare) -> int:
    problems = options.problems or (() if options.all else MAIN_PROBLEMS)
    optimizers = options.optimizers or (() if options.all else MAIN_OPTIMIZERS)
    plan = Plan(
        problems=[PROBLEMS[name] for name in pick(problems, PROBLEMS, "problem")],
        optimizers=[OPTIMIZERS[name] for name in pick(optimizers, OPTIMIZERS, "optimizer")],
        seeds=whole_number(options.seeds, "--seeds") or SEEDS,
        steps=whole_number(options.steps, "--steps"),
    )
    store = Store(options.out, options.fresh)
    print(plan.tuning_budget())
    interrupted = False
    with tqdm(total=plan.count_units(), bar_format=BAR) as bar:
        comparison = Comparison(plan, store, bar)
        try:
            comparison.run()
        except KeyboardInterrupt:
            if not any(results.runs for results in comparison.results):
                raise
            interrupted = True
        finished, report = write(comparison, interrupted)
        bar.set_description_str("interrupted" if interrupted else "done")
    print("\n" + console(finished))
    if store.reused:
        print(f"\nUsed again from {options.out}: {store.reused} finished parts (--fresh runs all).")
    print(f"\nReport: {report}")
    if interrupted:
        print(
            "Interrupted. What had finished is kept; the same command goes on from there.",
            file=sys.stderr,
        )
    return INTERRUPTED if interrupted else 0


def show_list(options: List) -> int:
    del options
    print("Problems (compare runs those with a star where none is named, with --all every one)")
    for name, problem in PROBLEMS.items():
        print(f"{_star(name, MAIN_PROBLEMS)} {name:30} {problem.title}")
    print("\nBenchmarks")
    for name in BENCHMARKS:
        print(f"  {name}")
    print("\nPictures")
    for name, lesson in LESSONS.items():
        print(f"  {name:30} {lesson.title}")
    print("\nOptimizers (likewise)")
    for name, optimizer in OPTIMIZERS.items():
        tuned = f" (tuned: {', '.join(optimizer.search)})" if optimizer.search else ""
        print(f"{_star(name, MAIN_OPTIMIZERS)} {name:30} {optimizer.label}{tuned}")
    return 0


def _star(name: str, main: tuple[str, ...]) -> str:
    return "*" if name in main else " "


@dataclass(frozen=True)
class Bench:
    """Measure one thing against its alternatives, in one run, and print the table."""

    name: tyro.conf.Positional[Annotated[str, tyro.conf.arg(metavar="NAME")]]
    """Which benchmark."""
    problems: Annotated[tuple[str, ...], tyro.conf.arg(metavar="PROBLEM")] = ()
    """Which problems; all of them if none is named."""
    solvers: Annotated[tuple[str, ...], tyro.conf.arg(metavar="NAME", aliases=("--methods",))] = ()
    """Which solvers or methods, the first being what times relate to; all if none is named."""
    quick: tyro.conf.FlagCreatePairsOff[bool] = False
    """Only what is quickly done: problems as given, in float64; fewer steps and trials."""
    lines: tyro.conf.FlagCreatePairsOff[bool] = False
    """Print every run as it ends."""
    out: Annotated[Path, tyro.conf.arg(metavar="FOLDER")] = Path("results/bench")
    """The folder for the page; its figures go to `images` beside it."""


def bench(options: Bench) -> int:
    (name,) = pick([options.name], BENCHMARKS, "benchmark")
    request = Request(options.problems, options.solvers, options.quick, options.lines)
    report = BENCHMARKS[name](request)
    file = name.replace("-", "_")
    named = ((" --problems ", options.problems), (" --solvers ", options.solvers))
    chosen = "".join(flag + " ".join(given) for flag, given in named if given)
    command = f"python -m experiments bench {file}{chosen}{' --quick' * options.quick}"
    text = page(command, file, report)
    print(text)
    print(f"Page: {save(text, options.out, file, report)}")
    return 0


@dataclass(frozen=True)
class Pictures:
    """Draw the gallery: what a derivative, a gradient, a Hessian and a Newton step are.

    Writes each picture as PNG and SVG, and `gallery.html` with all of them, which opens alone.
    """

    names: tyro.conf.Positional[Annotated[tuple[str, ...], tyro.conf.arg(metavar="NAME")]] = ()
    """Which pictures; all of them if none is named."""
    out: Annotated[Path, tyro.conf.arg(metavar="FOLDER")] = Path("results/pictures")
    """The folder for them."""


def pictures(options: Pictures) -> int:
    chosen = [LESSONS[name] for name in pick(options.names, LESSONS, "picture")]
    page, failed = make(chosen, options.out)
    for sentence in failed:
        print(f"A number is not what it should be. {sentence}", file=sys.stderr)
    print(f"Gallery: {page}")
    return 1 if failed else 0


def main(arguments: list[str] | None = None) -> int:
    command = tyro.cli(
        Compare | Bench | Pictures | List,
        args=arguments,
        prog="python -m experiments",
        description="Experiments with optimizers. Start with: python -m experiments compare",
    )
    try:
        if isinstance(command, Compare):
            return compare(command)
        if isinstance(command, Pictures):
            return pictures(command)
        return bench(command) if isinstance(command, Bench) else show_list(command)
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("Interrupted before the first run or page had finished.", file=sys.stderr)
        return INTERRUPTED


if __name__ == "__main__":
    sys.exit(main())
