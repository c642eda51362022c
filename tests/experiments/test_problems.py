"""Every problem is what its description says: its data, its sizes, its gradient and its optimum."""

import dataclasses
import functools
import re
import socket

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree
from tolerances import assert_close, rounding

from experiments.benchmarks.physics import PHYSICS
from experiments.compare.plan import Plan
from experiments.engine import Run, numerics
from experiments.figures import render
from experiments.optimizers import MAIN as MAIN_OPTIMIZERS
from experiments.optimizers import OPTIMIZERS
from experiments.problem import Problem
from experiments.problems import (
    MAIN,
    PROBLEMS,
    burgers,
    heat,
    matrix_factorisation,
    photo_patches,
    physics,
    poisson,
    poisson_5d,
    poisson_regression,
    quadratic,
    ridge,
)
from experiments.problems import burgers_by_residual as by_residual
from experiments.problems import hard_equations as hard
from experiments.problems import published_equations as published
from experiments.results import add_measure, target_name

#: Small problems and equations; a new one is checked without a new test.
EVERY = PROBLEMS | PHYSICS


@functools.cache
def measured(name: str):
    """Start, data and compiled value and gradient, all in float64."""
    problem = EVERY[name]
    with numerics(problem), jax.enable_x64(True):
        data = {key: wide(jnp.asarray(array)) for key, array in problem.load().items()}
        params = jax.tree.map(wide, problem.init(jax.random.key(0), data))
        batch = problem.looks_at(data)
        compiled = jax.jit(jax.value_and_grad(problem.objective(batch)))
        return params, compiled


def wide(x: jax.Array) -> jax.Array:
    return x.astype(float) if jnp.issubdtype(x.dtype, jnp.floating) else x


def size(params) -> int:
    return sum(leaf.size for leaf in jax.tree.leaves(params))


# ------------------------------------------------------------------------------ all of them


@pytest.mark.parametrize("name", EVERY)
def test_data_come_without_a_network_and_are_the_same_each_time(name, monkeypatch):
    monkeypatch.setattr(socket, "socket", None)
    problem = EVERY[name]
    again = getattr(problem.load, "__wrapped__", problem.load)()
    once = problem.load()
    assert once.keys() == again.keys()
    for key, array in once.items():
        np.testing.assert_array_equal(array, again[key])
        assert np.isfinite(array).all()


@pytest.mark.parametrize("name", EVERY)
def test_the_start_is_finite_and_the_gradient_that_of_finite_differences(name, x64):
    params, value_and_grad = measured(name)
    value, grad = value_and_grad(params)
    leaves, structure = jax.tree.flatten(params)
    generator = np.random.default_rng(0)
    # Each parameter by its own size: those of a fit differ by orders of magnitude.
    along = [generator.standard_normal(x.shape) * (jnp.abs(x) + 0.1) for x in leaves]
    h = 1e-5
    shifted = lambda s: jax.tree.unflatten(
        structure, [x + s * h * d for x, d in zip(leaves, along, strict=True)]
    )
    difference = (value_and_grad(shifted(1))[0] - value_and_grad(shifted(-1))[0]) / (2 * h)
    slope = sum(jnp.vdot(g, d) for g, d in zip(jax.tree.leaves(grad), along, strict=True))
    assert np.isfinite(value)
    noise = rounding(1 / h, abs(value))
    assert float(difference) == pytest.approx(float(slope), rel=1e-5, abs=noise)


@pytest.mark.parametrize("name", EVERY)
def test_the_description_states_the_sizes(name):
    problem = EVERY[name]
    data, text = problem.load(), problem.description
    shapes, _ = problem.example()
    number = lambda digits: int(digits.replace(",", ""))
    for found in re.findall(r"(\d[\d,]*) parameters", text):
        assert number(found) == size(shapes)
    precision = np.float64 if "float64" in text else np.float32
    assert (precision == np.float64) == problem.float64
    assert {x.dtype for x in map(np.asarray, data.values()) if x.dtype.kind == "f"} <= {
        np.dtype(precision)
    }
    halves = re.search(r"(\d[\d,]*)(?: images)? for\s+training, (\d[\d,]*) held out", text)
    if halves:
        lengths = len(data["inputs"]), len(data["held_out_inputs"])
        assert tuple(map(number, halves.groups())) == lengths


@pytest.mark.parametrize("name", EVERY)
def test_no_start_is_below_the_optimum(name, x64):
    if EVERY[name].optimum is None:
        return
    params, value_and_grad = measured(name)
    assert EVERY[name].optimum < value_and_grad(params)[0]


@pytest.mark.parametrize("name", EVERY)
def test_every_class_of_optimizers_has_steps_or_a_reason(name):
    problem = EVERY[name]
    for optimizer in OPTIMIZERS.values():
        assert (optimizer.step_class in problem.steps) != (optimizer.step_class in problem.left_out)


def test_the_main_ones_are_among_them():
    assert set(MAIN) < set(PROBLEMS)
    assert set(MAIN_OPTIMIZERS) < set(OPTIMIZERS)


# ------------------------------------------------------------------------- optima in closed form


def test_the_optimum_of_ridge_regression_is_that_of_a_longer_least_squares_problem(x64):
    """``‖Xw − y‖²/N + λ‖w‖²`` stacked into one system, solved by another route."""
    data = ridge.load()
    x, y = data["inputs"], data["targets"]
    rows = np.concatenate([x / len(y) ** 0.5, ridge.PENALTY**0.5 * np.eye(x.shape[1])])
    w = np.linalg.lstsq(rows, np.concatenate([y / len(y) ** 0.5, np.zeros(x.shape[1])]))[0]
    value, grad = measured("ridge")[1](jnp.asarray(w))
    assert_close(value, ridge.PROBLEM.optimum, 10)
    assert_close(grad, 0, 400, norm=np.linalg.norm(x.T @ y) / len(y))
    assert_close([x.mean(0), x.std(0)], [np.zeros(10), np.ones(10)], len(y) ** 0.5)
    curvature = rows.T @ rows
    assert np.linalg.cond(curvature) == pytest.approx(400, rel=0.1)


def test_the_truncated_decomposition_is_the_optimum_of_the_factorisation(x64):
    matrix = matrix_factorisation.load()["matrix"]
    u, s, vt = np.linalg.svd(matrix, full_matrices=False)
    rank = matrix_factorisation.RANK
    params = {
        "left": jnp.asarray(u[:, :rank] * s[:rank] ** 0.5),
        "right": jnp.asarray(vt[:rank].T * s[:rank] ** 0.5),
    }
    value, grad = measured("matrix-factorisation")[1](params)
    assert_close(value, matrix_factorisation.PROBLEM.optimum, 10)
    for leaf in grad.values():
        assert_close(leaf, 0, norm=s[0] ** 1.5)
    assert matrix.shape == (26, 40) and "26 x 40" in matrix_factorisation.PROBLEM.description
    _, there = measured("matrix-factorisation")[1](jax.tree.map(jnp.zeros_like, params))
    assert not any(jnp.any(leaf) for leaf in there.values())  # zero is stationary


def test_the_quadratic_has_the_spectrum_it_claims(x64):
    params, value_and_grad = measured("quadratic")
    matrix = jax.jacobian(lambda x: value_and_grad(x)[1])(params)
    assert_close(np.linalg.eigvalsh(matrix), quadratic.EIGENVALUES)
    assert np.linalg.cond(matrix) == pytest.approx(1e4)
    metrics = quadratic.metrics(params, quadratic.load())
    assert_close(list(metrics.values()), 1, 10)
    assert list(metrics) == ["mode_1e-04", "mode_1e-03", "mode_1e-02", "mode_1e-01", "mode_1e+00"]
    assert float(value_and_grad(jnp.zeros_like(params))[0]) == quadratic.PROBLEM.optimum


def test_the_counts_are_poissons(x64):
    """Given their rates, counts have mean and variance of the rate: Pearson's χ² is N."""
    data = poisson_regression.load()
    x, counts = data["inputs"], data["counts"]
    assert x.shape == (500, 12) and (counts == np.round(counts)).all() and counts.min() == 0
    neighbours = [np.corrcoef(x[:, k], x[:, k + 1])[0, 1] for k in range(11)]
    assert np.mean(neighbours) == pytest.approx(0.8, abs=0.03)
    params, value_and_grad = measured("poisson-regression")
    v, unravel = ravel_pytree(params)
    value = lambda v: value_and_grad(unravel(v))[0]
    derivatives = jax.jit(lambda v: (jax.grad(value)(v), jax.hessian(value)(v)))
    for _ in range(20):  # Newton's method; the likelihood is concave
        grad, hessian = derivatives(v)
        v = v - jnp.linalg.solve(hessian, grad)
    assert jnp.max(jnp.abs(grad)) < rounding(norm=jnp.linalg.norm(hessian) * jnp.linalg.norm(v))
    params = unravel(v)
    rates = np.exp(x @ params["weights"] + params["intercept"])
    assert np.sum((counts - rates) ** 2 / rates) == pytest.approx(500 - 13, abs=4 * 1000**0.5)


def test_patches_are_of_the_photographs_and_as_hard_as_described():
    data = photo_patches.load()
    x = data["inputs"].astype(float)
    assert x.shape == (1000, 64) and data["held_out_inputs"].shape == (500, 64)
    np.testing.assert_allclose(x.reshape(1000, -1).mean(1), 0, atol=1e-5)
    spectrum = np.linalg.svd(x, compute_uv=False) ** 2 / (2 * len(x))
    stated = re.search(
        r"Zero leaves ([\d.]+);.* eight, leave ([\d.]+)\.", PROBLEMS["photo-patches"].description
    )
    assert stated is not None
    zero, eight = map(float, stated.groups())
    assert spectrum.sum() == pytest.approx(zero, abs=0.05)
    assert spectrum[8:].sum() == pytest.approx(eight, abs=0.05)


# ----------------------------------------------------------------------------------- equations


HARD = {each.name: each for each in (hard.CONVECTION, hard.REACTION, hard.WAVE)}


SOLUTIONS = {
    "poisson-2d": poisson.solution,
    "poisson-5d": poisson_5d.solution,
    "heat": heat.solution,
    "burgers": burgers.solution,
    "poisson-2d-published": poisson.solution,
    "heat-published": heat.solution,
    "poisson-5d-shallow": poisson_5d.solution,
}


@pytest.mark.parametrize("name", [name for name in PHYSICS if name not in HARD])
def test_the_solution_of_an_equation_leaves_no_residual(name, x64, monkeypatch):
    """In place of the network: differentiated automatically within, by value on the boundary."""
    problem, solution = PHYSICS[name], SOLUTIONS[name]
    data = jax.tree.map(lambda x: wide(jnp.asarray(x)), dict(problem.load()))

    def root_mean_square(factor):
        """Of all residuals; of any parameters, which the solution does not use."""
        u = lambda params, x: factor * solution(x)
        with monkeypatch.context() as patched:
            patched.setattr(physics, "u", u)
            f = problem.objective(problem.looks_at(data))
            return float(jnp.sqrt(2 * jax.jit(f)(jnp.zeros(1))))

    assert root_mean_square(1.0) <= rounding(1e4)
    assert root_mean_square(1.1) > 1e-3
    exact = jax.vmap(solution)(data["held_out_points"])
    np.testing.assert_allclose(
        data["held_out_values"], exact, atol=1e-5 if name == "poisson-5d" else rounding()
    )


@pytest.mark.parametrize("problem", published.PROBLEMS, ids=lambda problem: problem.name)
def test_equations_in_the_published_settings_have_the_published_sizes(problem, x64):
    data = problem.load()
    params = problem.init(jax.random.key(0), data)
    five = problem.name == "poisson-5d-shallow"
    assert size(params) == (449 if five else 257)
    on = data["on_boundary"]
    assert ((~on).sum(), on.sum()) == ((3000, 500) if five else (900, 120))
    at_edge = np.any((data["points"] == 0) | (data["points"] == 1), axis=1)
    np.testing.assert_array_equal(at_edge, on)
    assert all(x.dtype == float for x in (*jax.tree.leaves(params), data["points"]))
    exact = np.asarray(data["held_out_values"])
    zero = jax.tree.map(jnp.zeros_like, params)
    assert_close(problem.metrics(zero, data)["error"], np.sqrt(np.mean(exact**2)))


def test_points_by_residual_follow_it(x64):
    """Where the residual is large, points are denser, by one plus its size over its mean."""
    params = by_residual.init(0)
    generator = np.random.default_rng(0)
    sizes = np.asarray(by_residual.sizes_of(params, by_residual.uniform(generator, 20_000)))
    drawn = by_residual.by_residual(generator, 4_000, params)
    assert drawn.shape == (4_000, 2)
    seen = np.asarray(by_residual.sizes_of(params, drawn)).mean()
    # Without replacement among five times as many, the densest are drawn out: a little less.
    wanted = (sizes.mean() + (sizes**2).mean() / sizes.mean()) / 2
    assert sizes.mean() < seen <= 1.05 * wanted
    assert seen > (sizes.mean() + wanted) / 2


def test_a_network_with_start_and_equal_ends_by_construction_has_them(x64):
    params = by_residual.init(0)
    x = jnp.linspace(-1, 1, 7)
    at = lambda t, x: by_residual.u(params, jnp.array([t, x]))
    assert_close(jax.vmap(lambda x: at(0.0, x))(x), -jnp.sin(jnp.pi * x), norm=1)
    t, ends = jnp.linspace(0, 1, 7), jnp.array([-1.0, 1.0])
    left, right = (jax.vmap(lambda t, x=x: at(t, x))(t) for x in ends)
    assert_close(left, right, norm=1)  # periodic in x, as the solution is


@pytest.mark.parametrize("name", HARD)
def test_the_solution_of_a_hard_equation_leaves_no_residual(name, x64, monkeypatch):
    """In place of the network: within, at the start, at rest there, and at both ends."""
    equation, data = HARD[name], PHYSICS[name].load()
    batch = jax.tree.map(jnp.asarray, data)

    def residuals(factor):
        u = lambda params, x: factor * equation.solution(x)
        with monkeypatch.context() as patched:
            patched.setattr(physics, "u", u)
            return hard.residual(equation, batch, None)

    np.testing.assert_allclose(residuals(1.0), 0, atol=rounding(1e4))
    assert float(jnp.max(jnp.abs(residuals(1.1)))) > 1e-3
    exact = jax.vmap(equation.solution)(batch["held_out_points"])
    np.testing.assert_allclose(data["held_out_values"], exact, atol=rounding())


def test_burgers_solution_is_that_of_finite_differences_and_of_the_literature(x64):
    u = jax.jit(jax.vmap(burgers.solution))
    points = np.array([[0.1, 0.3], [0.3, -0.6], [0.6, 0.2], [0.9, -0.4]])
    h = 1e-4
    t, x = np.array([h, 0]), np.array([0, h])
    rate = (u(points + t) - u(points - t)) / (2 * h)
    slope = (u(points + x) - u(points - x)) / (2 * h)
    bend = (u(points + x) + u(points - x) - 2 * u(points)) / h**2
    np.testing.assert_allclose(rate + u(points) * slope - 0.01 / np.pi * bend, 0, atol=1e-5)
    assert_close(u(np.array([[0.0, 0.25]])), -np.sin(np.pi / 4))
    # The steepest slope and when, as Basdevant et al. (1986) print them.
    steepest = jax.grad(burgers.solution)(jnp.array([1.6037 / np.pi, 0.0]))[1]
    assert float(steepest) == pytest.approx(-152.00516, abs=1e-3)


def test_nodes_are_many_enough_for_burgers_solution(x64):
    """Against the same integral by equal steps, which converge as fast on the whole line."""
    z = np.linspace(-12, 12, 4001)

    def summed(t, x):
        y = x - 2 * np.sqrt(burgers.VISCOSITY * t) * z
        exponent = -(z**2) - np.cos(np.pi * y) / (2 * np.pi * burgers.VISCOSITY)
        weights = np.exp(exponent - exponent.max())
        return -np.sum(weights * np.sin(np.pi * y)) / np.sum(weights)

    points = [(0.05, 0.9), (0.3, 0.02), (0.5, -0.01), (1.0, -0.06), (1.0, 0.5)]
    for t, x in points:
        assert_close(burgers.solution(jnp.array([t, x])), summed(t, x), 50, norm=1)  # of exp(50 …)


# -------------------------------------------------------------------------- who runs, and who not


def test_who_cannot_run_is_left_out_with_a_reason():
    plan = Plan([PROBLEMS["photo-patches"]], list(OPTIMIZERS.values()))
    running = {optimizer.step_class for optimizer in plan.optimizers_of(plan.problems[0])}
    assert running == {"first-order", "quasi-newton", "matrix-free"}
    dense, bfgs, sr1 = plan.left_out(plan.problems[0])
    assert "Newton; Gauss-Newton; Levenberg-Marquardt" in dense and "64,000 rows" in dense
    assert bfgs.startswith("Left out: BFGS; Self-scaled BFGS; ") and sr1.startswith("Left out: SR1")

    plain = dataclasses.replace(
        PROBLEMS["rosenbrock"], objective=lambda batch: lambda params: jnp.sum(params**4)
    )
    reasons = {name: optimizer.left_out(plain) for name, optimizer in OPTIMIZERS.items()}
    assert "no loss after a model" in reasons["gauss-newton"]
    assert "no matrix" in reasons["soap"]
    assert not reasons["newton"] and not reasons["adam"]
    plan = Plan([plain], list(OPTIMIZERS.values()))
    assert [unit.optimizer for unit in plan.units] == plan.optimizers_of(plain)


def test_an_equation_is_judged_by_the_error_of_its_solution():
    falling = {"step": np.arange(3.0), "value": np.full(3, 7.0), "error": np.array([1, 0.1, 0.01])}
    run = Run("heat", "adam", 0, "step limit", falling)
    add_measure(PROBLEMS["heat"], [run], 7.0)
    np.testing.assert_array_equal(run.columns["measure"], falling["error"])
    assert target_name(PROBLEMS["heat"], 1e-2) == "relative error ≤ 0.01"


def updates(problem: Problem, name: str):
    """Shapes of one update: a trace, nothing is computed."""
    optimizer = OPTIMIZERS[name]
    with numerics(problem):
        data = problem.load()
        params = problem.init(jax.random.key(0), data)
        f = problem.objective(problem.looks_at(data))

        def step(params):
            tx = optimizer.built(f, dict.fromkeys(optimizer.search, 0.1))
            value, grad = jax.value_and_grad(f)(params)
            extra = {"value": value, "grad": grad, "value_fn": f}
            new, state = tx.update(grad, tx.init(params), params, **extra)
            diagnostics = dict(optimizer.diagnose(state))
            assert optimizer.step_cost(dict.fromkeys(diagnostics, 1.0)) >= 1
            return new

        return jax.tree.structure(params), jax.tree.structure(jax.eval_shape(step, params))


@pytest.mark.parametrize("name", sorted(set(OPTIMIZERS) - set(MAIN_OPTIMIZERS)))
def test_every_further_optimizer_takes_a_step(name):
    given, found = updates(PROBLEMS["matrix-factorisation"], name)
    assert given == found


@pytest.mark.slow
@pytest.mark.parametrize("name", PROBLEMS)
def test_every_optimizer_takes_a_step_where_it_is_not_left_out(name):
    problem = PROBLEMS[name]
    for each, optimizer in OPTIMIZERS.items():
        if not optimizer.left_out(problem):
            given, found = updates(problem, each)
            assert given == found, each


def test_the_modes_of_the_quadratic_are_drawn():
    columns = {"step": np.arange(4.0)}
    columns |= {f"mode_{x:.0e}": 0.5 ** np.arange(4) for x in (1e-4, 1e-2, 1.0)}
    runs = [Run("quadratic", name, 0, "step limit", columns) for name in ("adam", "newton")]
    (picture,) = PROBLEMS["quadratic"].pictures
    figure = picture.draw(PROBLEMS["quadratic"], runs)
    assert [axes.get_title() for axes in figure.axes[:2]] == [
        OPTIMIZERS[name].label for name in ("adam", "newton")
    ]
    assert len(figure.axes[0].lines) == 3
    assert render(figure, "svg").startswith(b"<?xml")
