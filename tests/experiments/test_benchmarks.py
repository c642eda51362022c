"""The benchmarks judge fairly: digits, false successes, units and profiles."""

import importlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tolerances import assert_close, rounding
from tqdm import tqdm

from experiments.benchmarks import least_squares, logistic, minimize, summary
from experiments.benchmarks.arena import GIVEN, compete
from experiments.benchmarks.judge import (
    ELSEWHERE,
    FALSE,
    FLOAT32,
    FLOAT64,
    RIGHT,
    UNCLAIMED,
    best_digits,
    digits,
    polish_function,
    verdict,
)
from experiments.benchmarks.programs import Ended, Program, of_optax
from experiments.benchmarks.solvers import Solver
from experiments.benchmarks.tables import Request
from experiments.command_line import main
from experiments.profiles import data_profile, performance_profile
from experiments.store import read_table
from experiments.testset import MGH

QUIET = tqdm(disable=True)
WOOD = least_squares.case(MGH["wood"], (GIVEN, *least_squares.RESCALED))


@pytest.mark.parametrize(
    ("value", "minimum", "expected"),
    [
        (5.0, 5.0, 16),
        (5.0005, 5.0, 4),
        (4.9995, 5.0, 4),  # of another minimum's value nothing is known: below is as wrong as above
        (-1.001, -1.0, 3),
        (1e-12, 0.0, 6),  # a norm of residuals of 1e-6
        (1e-4 + 1e-12, 1e-4, 8),
        (1e-10 + 1e-12, 1e-10, 6),  # as near as a minimum of zero asks
        (1e3, 0.0, 0),
        (np.inf, 1.0, 0),
        (np.nan, 1.0, 0),
    ],
)
def test_digits_are_those_of_the_excess(value, minimum, expected):
    assert digits(value, minimum) == pytest.approx(expected, abs=1e-3)
    assert best_digits(value, [minimum, 1e9]) == pytest.approx(expected, abs=1e-3)


def judged(precision=FLOAT64, claimed=True, minima=WOOD.minima, at=(1.0, 1.0, 1.0, 1.0)):
    """The verdict on a point of Wood's function, whose minimum is at ones."""
    point = np.array(at)
    return verdict(
        claimed,
        float(WOOD.value(point)),
        minima,
        lambda: WOOD.polished(point),
        lambda: WOOD.settled(point),
        precision,
    )


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("precision", [FLOAT32, FLOAT64])
def test_a_claim_is_false_unless_the_point_is_right_or_stationary(precision):
    assert judged(precision) == RIGHT
    assert judged(precision, at=(1.0, 1.0, 1.0, 1.3)) == FALSE
    assert judged(precision, at=(-3.0, -1.0, -3.0, -1.0)) == FALSE
    assert judged(precision, at=(np.nan,) * 4) == FALSE
    assert judged(precision, at=(-3.0, -1.0, -3.0, -1.0), claimed=False) == UNCLAIMED
    assert judged(precision, minima=(7.0,)) == ELSEWHERE  # stationary, whatever the list says
    assert judged(precision, at=(-0.968, 0.947, -0.97, 0.951)) == ELSEWHERE  # a saddle, f = 7.877
    assert judged(precision, at=(-0.968, 0.947, -1.07, 0.951)) == FALSE


@pytest.mark.usefixtures("x64")
def test_a_function_is_polished_to_its_minimum():
    himmelblau = minimize.CASES["himmelblau"]
    polished = polish_function(himmelblau.function)
    assert polished(np.zeros(2)) == pytest.approx(0, abs=rounding(1e4) ** 2)
    assert polished(np.array([3.0, 2.0])) == 0


def test_every_listed_minimum_is_right_and_every_case_has_one():
    for case in minimize.CASES.values():
        assert all(best_digits(minimum, case.minima) == 16 for minimum in case.minima)
        assert case.minima


def stubborn(function, precision, x, *extra):
    """A solver that takes every start for a solution."""
    del function, precision, extra
    return Program(lambda x, *extra: Ended(np.asarray(x), True, "sure", 1, 1.0), lambda e: e, 0.0)


def test_a_solver_that_claims_its_start_is_caught_in_every_variant():
    solvers = {"stubborn": Solver("stubborn", stubborn, "#000000")}
    shown = []
    runs = compete([WOOD], solvers, FLOAT64, 1, QUIET, shown.append)
    assert len(runs) == len(shown) == 9
    assert all(run.false and not run.solved for run in runs)
    assert {run.variant for run in runs} == {GIVEN, *least_squares.RESCALED}
    (row,) = summary.results(summary.tabulated(runs), solvers, "").itertuples()
    assert float(row.false) == 9


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("variant", [GIVEN, *least_squares.RESCALED])
def test_a_problem_in_other_units_is_the_same_problem(variant):
    problem = MGH["kowalik-osborne"]
    case = least_squares.case(problem, (variant,))
    residual = jax.jit(case.function)
    gradient = jax.jit(jax.grad(problem.function))
    slope = jax.jit(jax.grad(lambda z, *extra: jnp.sum(case.function(z, *extra) ** 2)))
    for start, point in zip(case.starts, least_squares.points(problem), strict=True):
        units, weight = start.extra
        there = start.back(start.x)
        np.testing.assert_allclose(there, point, rtol=rounding())
        assert_close(residual(start.x, units, weight) / weight, problem.residual(there), 100)
        moved = (units[0], weight)
        assert moved == {GIVEN: (1, 1)}.get(variant, least_squares.RESCALED.get(variant))
        np.testing.assert_allclose(units[:-1] * units[1:], 1)
        expected = weight**2 * units * gradient(there)
        np.testing.assert_allclose(slope(start.x, units, weight), expected, rtol=1e-6)


def test_a_performance_profile_counts_problems_within_a_factor_of_the_best():
    costs = {"a": np.array([1.0, 4.0, 3.0, np.inf]), "b": np.array([2.0, 2.0, np.inf, np.inf])}
    profile = performance_profile(costs)
    np.testing.assert_allclose(profile["a"][0], [1, 1, 2])
    np.testing.assert_allclose(profile["a"][1], [0.25, 0.5, 0.75])  # the fourth, nobody solved
    np.testing.assert_allclose(profile["b"][0], [1, 2])
    np.testing.assert_allclose(profile["b"][1], [0.25, 0.5])
    np.testing.assert_allclose(data_profile(costs)["a"][0], [1, 3, 4])


@pytest.mark.usefixtures("x64")
def test_the_loop_around_a_bare_optimizer_stops_at_the_minimum():
    optax = pytest.importorskip("optax")
    x = np.array([-1.2, 1.0])
    rosenbrock = lambda p: (1 - p[0]) ** 2 + 100 * (p[1] - p[0] ** 2) ** 2
    program = of_optax(optax.lbfgs, lambda f: f, 1.0)(rosenbrock, FLOAT64, x)
    end = program.read(program.run(x))
    np.testing.assert_allclose(end.params, 1, atol=1e-6)
    assert end.claimed
    assert 20 < end.steps < 60
    assert end.cost > end.steps  # a line search evaluates at least once per step


def test_a_benchmark_leaves_a_page_and_a_figure(tmp_path, capsys):
    chosen = ["--problems", "rosenbrock", "--solvers", "levenberg_marquardt", "scipy-lm"]
    folder = tmp_path / "results"
    assert main(["bench", "least_squares", *chosen, "--quick", "--out", str(folder)]) == 0
    page = (folder / "least_squares.md").read_text()
    assert "solved of 3" in page
    assert f"bench least_squares {' '.join(chosen)} --quick" in page
    assert (tmp_path / "images" / "least_squares.png").stat().st_size > 10_000
    assert "solved of 3" in capsys.readouterr().out
    found = read_table(folder / "least_squares-quick", "results")
    assert len(found[found.quantity == "solved"]) == 6


def test_a_missing_peer_is_named_with_the_extra_that_holds_it(monkeypatch, capsys, tmp_path):
    def missing(name):
        raise ImportError(name)

    monkeypatch.setattr(importlib, "import_module", missing)
    arguments = ["--solvers", "optimistix-dogleg", "--out", str(tmp_path)]
    assert main(["bench", "least_squares", *arguments]) == 2
    assert "peers" in capsys.readouterr().err


def test_newtons_steps_by_products_end_logistic_regression_in_ten():
    request = Request(("logistic",), ("newton-cg", "lbfgs"), quick=True)
    report = logistic.run(request)
    (table,) = report.tables.values()
    ours, theirs = table.iterations.astype(int)
    assert ours <= 10 < theirs
    assert (table["‖g‖"].astype(float) <= 1e-8).all()
    found = report.results
    assert list(found.columns) == ["table", "case", "quantity", "value"]
    assert list(found.value[found.quantity == "iterations"]) == list(table.iterations)
