"""The published least-squares problems, from their standard starts."""

import jax.numpy as jnp
import pytest

import secondorder as so
from experiments.testset import MGH


@pytest.mark.slow
@pytest.mark.parametrize("name", MGH)
def test_least_squares_ends_converged_at_a_published_minimum(name, x64):
    problem = MGH[name]
    solution = so.least_squares(problem.residual, jnp.asarray(problem.start, jnp.float64))
    reached = 2 * float(solution.value)
    # A minimum of 4.7e-10 counts as reached within what a minimum of zero allows.
    near = [abs(reached - f) <= 1e-6 * f + 1e-12 for f in problem.minima]
    assert any(near), f"f = {reached}, the published minima are {problem.minima}"
    assert bool(solution.success), solution.message
