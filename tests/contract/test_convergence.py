"""How many steps a method takes to the minimum of a parabola, of a valley, of a regression."""

import jax.numpy as jnp
import pytest
from contract.problems import batch, logistic, logistic_start, valley
from contract.steps import trainer, vdot
from contract.table import METHODS, rows


def slope_after(steps: int, name, objective, params, data) -> float:
    """The length of the gradient at the point that so many steps lead to."""
    grads = trainer(name, objective).run(params, data, steps + 1).grads
    return vdot(grads, grads) ** 0.5


def assert_solved_within(steps: int, *problem):
    assert slope_after(0, *problem) > 0.1
    assert slope_after(steps, *problem) < 1e-3


@pytest.mark.quick(2)
@rows(lambda method: method.parabola)
def test_it_solves_a_parabola_within_its_stated_steps(name):
    problem = name, valley, jnp.array([-1.0, 2.0]), (1.2, 0.0)
    assert_solved_within(METHODS[name].parabola, *problem)


@pytest.mark.quick(3)
@rows(lambda method: method.rosenbrock)
def test_it_solves_rosenbrocks_valley_within_its_stated_steps(name):
    problem = name, valley, jnp.array([-1.2, 1.0]), (10.0, 1.0)
    assert_solved_within(METHODS[name].rosenbrock, *problem)


@pytest.mark.quick(3)
@rows(lambda method: method.logistic)
def test_it_solves_a_logistic_regression_within_its_stated_steps(name):
    problem = name, logistic, logistic_start(), batch()
    assert_solved_within(METHODS[name].logistic, *problem)
