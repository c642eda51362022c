"""The command line: `python -m experiments --help`."""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from experiments.bar import Bar
from experiments.compare.diff import compare_folders, two_folders
from experiments.compare.page import console
from experiments.compare.plan import SEEDS, Plan
from experiments.compare.publish import images_of
from experiments.compare.run import Comparison
from experiments.compare.write import Drawn, write
from experiments.errors import UserError, pick, whole_number
from experiments.optimizers import MAIN as MAIN_OPTIMIZERS
from experiments.optimizers import OPTIMIZERS
from experiments.problems import MAIN as MAIN_PROBLEMS
from experiments.problems import PROBLEMS
from experiments.store import Store
from experiments.studies import FOLDERS, Limits, play, publish, title

INTERRUPTED = 130  # the exit code of a command ended by Ctrl-C
KEPT = "Interrupted. What had finished is kept; the same command goes on from there."

Number = Annotated[str | None, tyro.conf.arg(metavar="N")]


@dataclass(frozen=True)
class Compare:
    """Run optimizers on problems; draw and tabulate how fast they converge, and at what cost.

    Writes tables, figures and a report that opens alone. Finished runs are kept in the folder, so
    that an interrupted comparison goes on where it stopped. Given two folders of results instead of
    problems, it tabulates the ratios of what is in them.
    """

    problems: tyro.conf.Positional[
        Annotated[tuple[str, ...], tyro.conf.arg(metavar="PROBLEM|FOLDER")]
    ] = ()
    """Which problems; the main ones if none is named (`list` marks them). Or two result folders."""
    optimizers: Annotated[tuple[str, ...], tyro.conf.arg(metavar="NAME")] = ()
    """Which optimizers; the main ones if none is named."""
    all: tyro.conf.FlagCreatePairsOff[bool] = False
    """Where no problem is named all of them, and where no optimizer is named all of those."""
    seeds: Number = None
    """Seeds per optimizer where the start is random; 3 unless given."""
    steps: Number = None
    """Upper limit of steps per run; each problem has its own limits besides."""
    out: Annotated[Path | None, tyro.conf.arg(metavar="FOLDER")] = None
    """The folder for the results; results/compare unless given, results/diff for two folders."""
    jobs: Number = None
    """Number of runs side by side, each optimizer on each problem in one piece; 1 unless given.
    Several end sooner, with the seconds of a shared machine, as the report notes."""
    fresh: tyro.conf.FlagCreatePairsOff[bool] = False
    """Run everything again, whatever the folder holds."""
    publish: Annotated[Path | None, tyro.conf.arg(metavar="FOLDER")] = None
    """Write the Markdown report there, too, its figures of convergence and the profiles made
    light; not where it is interrupted."""


@dataclass(frozen=True)
class List:
    """Show the problems, the optimizers and the pictures by name."""


def compare(options: Compare) -> int:
    if folders := two_folders(options.problems):
        if options != Compare(options.problems, out=options.out):
            raise UserError("Of two folders of results nothing is run: give --out, or no option.")
        print(compare_folders(folders, options.out or Path("results/diff")))
        return 0
    out = options.out or Path("results/compare")
    problems = options.problems or (() if options.all else MAIN_PROBLEMS)
    optimizers = options.optimizers or (() if options.all else MAIN_OPTIMIZERS)
    plan = Plan(
        problems=[PROBLEMS[name] for name in pick(problems, PROBLEMS, "problem")],
        optimizers=[OPTIMIZERS[name] for name in pick(optimizers, OPTIMIZERS, "optimizer")],
        seeds=whole_number(options.seeds, "--seeds") or SEEDS,
        steps=whole_number(options.steps, "--steps"),
    )
    if options.publish:
        images_of(
            options.publish
        )  # a folder that cannot be written is an error before the first run
    store = Store(out, options.fresh)
    jobs = whole_number(options.jobs, "--jobs") or 1
    print(plan.tuning_budget())
    interrupted = False
    with Bar(plan.count_parts()) as bar:
        drawn = Drawn(store, bar)
        comparison = Comparison(plan, store, bar, jobs, drawn)
        try:
            comparison.run()
        except KeyboardInterrupt:
            if not any(results.runs for results in comparison.results):
                raise
            interrupted = True
        finished, report, published = write(comparison, interrupted, drawn, options.publish)
        bar.set_description_str("interrupted" if interrupted else "done")
    print("\n" + console(finished))
    if bar.skipped:
        print(f"\n{bar.used_again(out)}")
    print(f"\nReport: {report}")
    if published:
        print(f"For the documents: {published}")
    for note in comparison.notes():
        print(note, file=sys.stderr)
    if interrupted:
        print(KEPT, file=sys.stderr)
    return INTERRUPTED if interrupted else 1 if comparison.failed else 0


def show_list(options: List) -> int:
    # Here and below: the comparison, which is run most, starts a second sooner without these.
    from experiments.benchmarks import BENCHMARKS
    from experiments.gallery import LESSONS

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
    print("\nStudies")
    for name, folder in FOLDERS.items():
        print(f"  {name:30} {title(folder)}")
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
    """The folder for the page; its figures go to `images` beside it. `networks` and `physics` keep
    their runs there, in a folder of their name, and go on where they were interrupted."""
    fresh: tyro.conf.FlagCreatePairsOff[bool] = False
    """Run everything again, whatever is kept. The other benchmarks keep nothing, so always do."""


def bench(options: Bench) -> int:
    from experiments.benchmarks import BENCHMARKS
    from experiments.benchmarks.tables import Request
    from experiments.benchmarks.tables import publish as publish_page

    (name,) = pick([options.name], BENCHMARKS, "benchmark")
    file = name.replace("-", "_")
    request = Request(
        problems=options.problems,
        solvers=options.solvers,
        quick=options.quick,
        lines=options.lines,
        # A quick run must not replace one of half an hour.
        folder=options.out / (file + "-quick" * options.quick),
        fresh=options.fresh,
    )
    try:
        report = BENCHMARKS[name](request)
    except KeyboardInterrupt:
        if not request.folder.exists():
            raise
        print(KEPT, file=sys.stderr)
        return INTERRUPTED
    named = ((" --problems ", options.problems), (" --solvers ", options.solvers))
    chosen = "".join(flag + " ".join(given) for flag, given in named if given)
    command = f"python -m experiments bench {file}{chosen}{' --quick' * options.quick}"
    text, written = publish_page(report, command, file, request, options.out)
    print(f"{text}\nPage: {written}")
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
    from experiments.gallery import LESSONS, make

    chosen = [LESSONS[name] for name in pick(options.names, LESSONS, "picture")]
    page, failed = make(chosen, options.out)
    for sentence in failed:
        print(f"A number is not what it should be. {sentence}", file=sys.stderr)
    print(f"Gallery: {page}")
    return 1 if failed else 0


@dataclass(frozen=True)
class Study:
    """Run an experiment of a page: its script races optimizers and prints its tables."""

    name: tyro.conf.Positional[Annotated[str, tyro.conf.arg(metavar="NAME")]]
    """Which one: a folder of `experiments/studies`."""
    seeds: Number = None
    """Seeds per optimizer where the start is random; 3 unless given."""
    steps: Number = None
    """Upper limit of steps per run."""
    out: Annotated[Path, tyro.conf.arg(metavar="FOLDER")] = Path("results/studies")
    """The folder for the runs; finished ones are used again."""
    fresh: tyro.conf.FlagCreatePairsOff[bool] = False
    """Run everything again."""
    publish: tyro.conf.FlagCreatePairsOff[bool] = False
    """Write what is printed into the README of its folder."""


def study(options: Study) -> int:
    (name,) = pick([options.name], FOLDERS, "study")
    limits = Limits(
        seeds=whole_number(options.seeds, "--seeds") or SEEDS,
        steps=whole_number(options.steps, "--steps"),
        folder=options.out,
        fresh=options.fresh,
    )
    printed = play(FOLDERS[name], limits)
    if options.publish:
        print(f"\nPage: {publish(FOLDERS[name], printed)}")
    return 0


def main(arguments: list[str] | None = None) -> int:
    command = tyro.cli(
        Compare | Study | Bench | Pictures | List,
        args=arguments,
        prog="python -m experiments",
        description="Experiments with optimizers. Start with: python -m experiments compare",
    )
    try:
        if isinstance(command, Compare):
            return compare(command)
        if isinstance(command, Pictures):
            return pictures(command)
        if isinstance(command, Study):
            return study(command)
        return bench(command) if isinstance(command, Bench) else show_list(command)
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("Interrupted before the first run or page had finished.", file=sys.stderr)
        return INTERRUPTED
