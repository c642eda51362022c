"""Solvers for Optimistix step as ``minimize`` and ``least_squares`` do, and end as they do."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import optimistix as optx
import pytest
from tolerances import rounding

import secondorder as so
from secondorder.interop.optimistix import LeastSquaresSolver, Minimiser

pytestmark = pytest.mark.usefixtures("x64")

TIGHT = rounding(2500)  # the Hessian of Rosenbrock's function
START = {"x": np.array(-1.2), "y": np.array(1.0)}


def residual(p, args=None):
    return jnp.stack([10 * (p["y"] - p["x"] ** 2), 1 - p["x"]])


def rosenbrock(p, args=None):
    return 0.5 * jnp.sum(residual(p) ** 2)


def the_same(theirs, ours):
    close = jax.tree.map(lambda a, b: jnp.allclose(a, b, rtol=TIGHT), theirs.value, ours.params)
    assert all(jax.tree.leaves(close))
    assert (
        abs(int(theirs.stats["steps"]) - int(ours.steps)) <= 1
    )  # another program rounds otherwise
    assert int(theirs.stats["status"]) == int(ours.status)


MINIMISE = optx.minimise, Minimiser, so.minimize, rosenbrock
LEAST_SQUARES = optx.least_squares, LeastSquaresSolver, so.least_squares, residual


@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "entry"),
    [
        (so.newton_cg, MINIMISE),
        (so.trust_region_newton, MINIMISE),
        (so.lbfgs, MINIMISE),
        (so.levenberg_marquardt, LEAST_SQUARES),
        (so.dogleg, LEAST_SQUARES),
        (so.gauss_newton, LEAST_SQUARES),
    ],
)
def test_the_steps_are_those_of_minimize_and_of_least_squares(method, entry):
    their_solve, solver, our_solve, fn = entry
    ours = jax.jit(lambda p: our_solve(fn, p, method()))(START)
    assert bool(ours.success)
    the_same(their_solve(fn, solver(method()), START), ours)


def test_a_rejected_step_is_no_end():
    """Optimistix's own wrapper takes an update of zeros for convergence."""
    cliff = lambda p, args: jnp.sqrt(1 + 100 * p**2)  # Newton's step overshoots from far away
    method = so.trust_region_newton(trust=1e6)
    found = optx.minimise(cliff, Minimiser(method), jnp.array(3.0))
    assert found.state.state.rejections > 0
    assert abs(found.value) < 1e-6
    fooled = optx.minimise(cliff, optx.OptaxMinimiser(method, 1e-8, 1e-8), jnp.array(3.0))
    assert abs(fooled.value) > 1


@pytest.mark.slow
def test_the_solution_is_differentiable_by_the_adjoint_of_optimistix():
    quadratic = lambda y, args: jnp.sum((y - args**2) ** 2 * jnp.array([1.0, 3.0]))
    solve = lambda a: optx.minimise(quadratic, Minimiser(so.newton()), jnp.zeros(2), args=a).value
    assert jnp.allclose(jax.jacrev(solve)(jnp.array(3.0)), 6.0)
    assert jnp.allclose(jax.jacfwd(solve)(jnp.array(3.0)), 6.0)


@pytest.mark.quick(1)
@pytest.mark.parametrize("kind", ["minimise", "least_squares"])
def test_the_auxiliary_output_is_that_of_the_solution(kind):
    fn = {"minimise": rosenbrock, "least_squares": residual}[kind]
    solver = {
        "minimise": Minimiser(so.trust_region_newton()),
        "least_squares": LeastSquaresSolver(so.levenberg_marquardt()),
    }[kind]
    with_aux = lambda p, args: (fn(p), {"twice": 2 * p["x"]})
    found = getattr(optx, kind)(with_aux, solver, START, has_aux=True)
    assert float(found.aux["twice"]) == 2 * float(found.value["x"])


def test_an_objective_that_becomes_nan_ends_at_the_last_finite_point():
    wall = lambda y, args: jnp.where(y > 0.5, y, jnp.nan)
    solver = Minimiser(optax.sgd(0.4))
    found = optx.minimise(wall, solver, jnp.array(1.0), throw=False)
    assert found.result == optx.RESULTS.nonfinite
    assert int(found.stats["status"]) == so.Status.NONFINITE.value
    assert float(found.value) == pytest.approx(0.6)


@pytest.mark.slow
def test_the_step_limit_is_that_of_optimistix():
    solver = Minimiser(so.gradient_descent())
    found = optx.minimise(rosenbrock, solver, START, max_steps=5, throw=False)
    assert found.result == optx.RESULTS.nonlinear_max_steps_reached
    assert int(found.stats["steps"]) == 5


def test_an_end_that_is_no_success_says_why():
    still = Minimiser(optax.sgd(0.0))
    found = optx.minimise(rosenbrock, still, START, throw=False)
    assert found.result == optx.RESULTS.nonlinear_divergence
    assert int(found.stats["status"]) == so.Status.STAGNATED.value


@pytest.mark.slow
def test_many_starts_at_once():
    starts = {"x": jnp.array([-1.2, 0.0, 2.0]), "y": jnp.array([1.0, -1.0, 2.0])}
    solver = LeastSquaresSolver(so.levenberg_marquardt())
    found = jax.vmap(lambda p: optx.least_squares(residual, solver, p).value)(starts)
    assert jnp.allclose(found["x"], 1.0)
    assert jnp.allclose(found["y"], 1.0)


def test_a_gauss_newton_method_asks_for_residuals():
    with pytest.raises(TypeError, match="sum_of_squares"):
        optx.minimise(rosenbrock, Minimiser(so.gauss_newton()), START)


def test_options_are_refused_rather_than_ignored():
    with pytest.raises(ValueError, match="lower"):
        optx.minimise(rosenbrock, Minimiser(so.newton_cg()), START, options={"lower": 0.0})


def test_the_best_point_so_far_is_found_by_the_wrapper_of_optimistix():
    solver = optx.BestSoFarMinimiser(Minimiser(so.newton_cg()))
    found = optx.minimise(rosenbrock, solver, START)
    assert float(found.value["x"]) == pytest.approx(1.0)


@pytest.mark.slow
def test_a_root_is_found_and_one_that_does_not_exist_is_not():
    solver = LeastSquaresSolver(so.levenberg_marquardt())
    found = optx.root_find(lambda y, args: y**3 - args, solver, np.array(1.0), args=8.0)
    assert float(found.value) == pytest.approx(2.0)
    apart = lambda y, args: jnp.stack([y - 1, y + 1])
    missed = optx.root_find(apart, solver, np.array(3.0), throw=False)
    assert missed.result != optx.RESULTS.successful


@pytest.mark.parametrize(
    ("max_steps", "value", "status"),
    [(1, 0.6, so.Status.MAX_STEPS), (2, 0.6, so.Status.NONFINITE)],
)
def test_the_last_point_within_the_step_limit_is_looked_at(max_steps, value, status):
    wall = lambda y, args: jnp.where(y > 0.5, y, jnp.nan)
    solver = Minimiser(optax.sgd(0.4))
    found = optx.minimise(wall, solver, np.array(1.0), max_steps=max_steps, throw=False)
    assert float(found.value) == pytest.approx(value)
    assert int(found.stats["status"]) == status.value
    assert float(found.stats["grad_norm"]) == pytest.approx(1.0)


@pytest.mark.slow
def test_a_rejected_step_costs_no_second_factorisation():
    cliff = lambda p, args=None: jnp.sqrt(1 + 100 * p**2)
    theirs = optx.minimise(cliff, Minimiser(so.trust_region_newton(trust=1e6)), np.array(3.0))
    ours = so.minimize(cliff, np.array(3.0), so.trust_region_newton(trust=1e6))
    assert int(ours.state.rejections) > 0
    assert int(theirs.state.state.products) == int(ours.state.products)
