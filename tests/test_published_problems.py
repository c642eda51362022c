"""The published least-squares problems and regressions, from their standard starts."""

import jax.numpy as jnp
import numpy as np
import pytest
from cases import with_slow

import secondorder as so
from experiments.testset import MGH, NIST


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


@pytest.mark.parametrize(("name",), with_slow(NIST, lambda name: name in ("boxbod", "mgh17")))
def test_a_regression_of_nist_ends_with_certified_parameters_and_errors(name, x64):
    problem = NIST[name]
    for start in problem.starts:
        fit = so.curve_fit(problem.model, problem.x, problem.y, jnp.asarray(start))
        assert bool(fit.solution.success), fit
        np.testing.assert_allclose(fit.params, problem.params, rtol=1e-6)
        # Lanczos1 is data of fourteen digits: rounding is a part of its residuals.
        digits = 1e-2 if name == "lanczos1" else 1e-6
        np.testing.assert_allclose(fit.standard_errors, problem.errors, rtol=digits)
