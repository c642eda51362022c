"""What the comparison promises to show, without a clock."""

import numpy as np
import pytest

from experiments.engine import Status, prepare, run, set_up
from experiments.optimizers import OPTIMIZERS
from experiments.problems import PROBLEMS, curve_fit
from experiments.tuning import tune


@pytest.fixture(scope="module")
def logistic():
    return set_up(PROBLEMS["logistic"])


def test_newton_solves_logistic_regression_in_twelve_steps(logistic):
    result = run(prepare(logistic, OPTIMIZERS["newton"]), 0, 12)
    assert result.status == Status.CONVERGED
    assert result.columns["grad_norm"][-1] <= 1e-8


def test_gradient_descent_at_its_best_fixed_step_needs_hundreds(logistic):
    prepared = prepare(logistic, OPTIMIZERS["gradient-descent"])
    best = tune(prepared).best.setting
    result = run(prepared, 0, 200, {"learning_rate": best})
    assert result.status == Status.STEP_LIMIT
    assert result.columns["grad_norm"][-1] > 1e-8


@pytest.mark.parametrize("name", ["gauss-newton", "levenberg-marquardt"])
def test_least_squares_methods_end_rosenbrock_within_twenty_steps(name):
    result = run(prepare(set_up(PROBLEMS["rosenbrock"]), OPTIMIZERS[name]), 0, 20)
    assert result.status == Status.CONVERGED
    np.testing.assert_allclose([result.columns[c][-1] for c in "xy"], [1.0, 1.0], atol=1e-7)


@pytest.mark.parametrize("name", ["gauss-newton", "levenberg-marquardt"])
def test_least_squares_methods_find_the_certified_curve(name):
    result = run(prepare(set_up(PROBLEMS["curve-fit"]), OPTIMIZERS[name]), 0, 100)
    certified = curve_fit.CERTIFIED_SUM_OF_SQUARES
    assert 2 * result.columns["value"][-1] == pytest.approx(certified, abs=1e-6)  # eleven digits


def test_newton_finds_the_certified_curve_from_where_the_hessian_is_indefinite():
    # Shifted by a multiple of the identity, it was at 3% of its first value after 200 steps.
    result = run(prepare(set_up(PROBLEMS["curve-fit"]), OPTIMIZERS["newton"]), 0, 30)
    certified = curve_fit.CERTIFIED_SUM_OF_SQUARES
    assert 2 * result.columns["value"][-1] == pytest.approx(certified, abs=1e-6)
