"""A method takes the same steps for an objective in other units."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tolerances import assert_close

import secondorder as so

TIMES = np.linspace(0.0, 2.0, 12)
SEEN = 3 * np.exp(-1.5 * TIMES) + 0.05 * np.cos(9 * TIMES)
METHODS = (
    *("gradient_descent", "newton", "trust_region_newton", "newton_cg", "cubic_newton"),
    *("bfgs", "lbfgs", "sr1", "gauss_newton", "levenberg_marquardt", "dogleg", "hybrid_newton"),
    "natural_gradient",
)
# Their λ starts in the units of the curvature, as in the papers.
IN_UNITS = ("hessian_free", "layerwise_gauss_newton")


def solutions(name, root):
    """The solutions for the objective times 1, and times the square of ``root`` and ``1/root``."""

    @jax.jit
    def solve(root):
        residual = lambda p: root * (p[0] * jnp.exp(-p[1] * TIMES) - SEEN)
        return so.minimize(so.sum_of_squares(residual), jnp.array([1.0, 0.5]), name, max_steps=60)

    return [solve(factor) for factor in (1.0, root, 1 / root)]


@pytest.mark.quick(1)
@pytest.mark.parametrize("name", METHODS)
def test_a_method_takes_the_same_steps_for_the_objective_in_other_units(name, x64):
    plain, *others = solutions(name, 2.0**20)  # a power of two, which does not change the rounding
    for other in others:
        assert int(other.steps) == int(plain.steps) and int(other.status) == int(plain.status)
        assert_close(other.params, plain.params)
    for other in solutions(name, 1e6)[1:]:  # the objective times 1e12 and 1e-12
        assert abs(int(other.steps) - int(plain.steps)) <= 1
        np.testing.assert_allclose(other.params, plain.params, rtol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("name", IN_UNITS)
def test_a_method_with_damping_in_units_solves_it_in_other_units(name, x64):
    plain, *others = solutions(name, 1e6)
    for other in others:
        assert bool(other.success)
        np.testing.assert_allclose(other.params, plain.params, rtol=1e-6)
