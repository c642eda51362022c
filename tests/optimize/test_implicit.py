"""Derivatives of solutions, against finite differences and closed forms."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tolerances import assert_close

import secondorder as so

T = jnp.linspace(0.0, 2.0, 12)


def ridge(theta):
    """``argmin ½ Σ wᵢ (xᵢ − θᵢ)² + ½ ‖x‖²``, closed form ``wθ/(w + 1)``."""
    w = jnp.array([1.0, 3.0])
    f = lambda p: 0.5 * jnp.sum(w * (p["x"] - theta) ** 2) + 0.5 * jnp.sum(p["x"] ** 2)
    return so.minimize(f, {"x": jnp.zeros(2)})


def decay(y):
    residual = lambda p: p[0] * jnp.exp(-p[1] * T.astype(y.dtype)) - y
    return so.least_squares(residual, jnp.ones(2, y.dtype))


@pytest.mark.slow
def test_forward_and_reverse_agree_with_the_closed_form(x64):
    theta, expected = jnp.array([1.0, -2.0]), np.diag([0.5, 0.75])
    solve = lambda theta: ridge(theta).params["x"]
    assert_close(jax.jacfwd(solve)(theta), expected, 4)  # the Hessian is 4 and 2
    assert_close(jax.jacrev(solve)(theta), expected, 4)


def test_the_value_of_the_solution_is_differentiable_too(x64):
    theta = jnp.array([1.0, -2.0])
    # f* = ½ Σ w/(w + 1) θ²
    expected = np.array([0.5, 0.75]) * theta
    assert_close(jax.grad(lambda t: ridge(t).value)(theta), expected, 4)


@pytest.mark.slow
def test_second_derivatives_of_a_solution_agree_with_finite_differences(x64):
    solve = lambda a: so.minimize(lambda p: (p - a) ** 2 + p**4 / 4, jnp.array(0.0)).params
    first = jax.grad(solve)
    step = 1e-4
    expected = (first(1.0 + step) - first(1.0 - step)) / (2 * step)
    np.testing.assert_allclose(jax.grad(first)(1.0), expected, rtol=1e-5)


@pytest.mark.slow
def test_jit_of_vmap_of_grad_gives_the_derivative_of_each_fit(x64):
    t = T.astype(jnp.float64)
    y = 3.0 * jnp.exp(-1.5 * t) + 0.02 * jnp.cos(30 * t)
    ys = jnp.stack([y, 1.1 * y])
    slope = lambda y: decay(y).params[1]
    batched = jax.jit(jax.vmap(jax.grad(slope)))(ys)
    step = 1e-6
    for row, y in zip(batched, ys, strict=True):
        for k in (0, 5):
            moved = slope(y.at[k].add(step)) - slope(y.at[k].add(-step))
            np.testing.assert_allclose(row[k], moved / (2 * step), rtol=1e-4, atol=1e-8)


@pytest.mark.slow
@pytest.mark.parametrize("form", ["compose", "per_example"])
def test_targets_and_examples_of_an_objective_are_differentiated_through(form, x64):
    x = jnp.array([[1.0, 0.2], [0.3, 1.0], [1.0, 1.0]])
    y = jnp.array([1.0, 2.0, 2.5])

    def solve(x, y):
        model = lambda p, xi: p @ xi
        if form == "per_example":
            f = so.per_example(so.squared_error(y), model, x)
        else:
            f = so.compose(so.squared_error(y), lambda p: x @ p)
        return so.minimize(f, jnp.zeros(2), so.levenberg_marquardt()).params

    normal = lambda x, y: jnp.linalg.solve(x.T @ x, x.T @ y)
    for argument in (0, 1):
        np.testing.assert_allclose(
            jax.jacrev(solve, argument)(x, y), jax.jacrev(normal, argument)(x, y), atol=1e-6
        )


def test_a_parameter_on_its_bound_does_not_move(x64):
    def solve(theta):
        f = lambda p: jnp.sum((p - theta) ** 2)
        return so.minimize(f, jnp.zeros(2), bounds=(-1.0, 1.0)).params

    derivative = jax.jacrev(solve)(jnp.array([0.5, 3.0]))
    assert_close(derivative, [[1.0, 0.0], [0.0, 0.0]])


def test_a_large_tangent_system_is_solved_without_its_matrix(x64):
    n = 500
    curve = jnp.linspace(1.0, 10.0, n)

    def solve(scale):
        f = lambda p: 0.5 * jnp.sum(curve * p**2) - scale * jnp.sum(p)
        return jnp.sum(so.minimize(f, jnp.zeros(n)).params)

    gradient = jax.jit(jax.grad(solve))
    np.testing.assert_allclose(gradient(2.0), jnp.sum(1 / curve), rtol=1e-8)
    assert f"f64[{n},{n}]" not in gradient.lower(2.0).compile().as_text()


def test_where_it_started_does_not_matter(x64):
    solve = lambda start: so.minimize(lambda p: jnp.sum((p - 1.0) ** 2), start).params
    np.testing.assert_array_equal(jax.jacrev(solve)(jnp.array([3.0, 4.0])), np.zeros((2, 2)))


@pytest.mark.slow
def test_the_strength_of_a_penalty_and_the_targets_of_a_total_are_differentiated(x64):
    x, y = jnp.array([[1.0, 0.5], [0.3, -1.0], [0.7, 2.0]]), jnp.array([1.0, -0.5, 2.0])

    def fit(y, strength):
        loss = so.losses.total(so.squared_error(y), so.losses.half_sum_of_squares())
        objective = so.compose(loss, lambda p: (x @ p, jnp.sqrt(strength) * p))
        return so.minimize(objective, jnp.zeros(2), so.levenberg_marquardt()).params

    # (xᵀx/3 + λ) p = xᵀy/3
    expected = lambda y, strength: jnp.linalg.solve(
        x.T @ x / 3 + strength * jnp.eye(2), x.T @ y / 3
    )
    np.testing.assert_allclose(fit(y, 0.2), expected(y, 0.2), rtol=1e-8)
    for found, exact in zip(
        *(jax.jacobian(f, (0, 1))(y, 0.2) for f in (fit, expected)), strict=True
    ):
        np.testing.assert_allclose(found, exact, rtol=1e-7)


# ------------------------------------------------------------------------------------- bounds


def line(x, y):
    """Of three ways to fit a curve, the parameters as a function of the bounds."""
    model = lambda p, x: p[0] * jnp.exp(-p[1] * x) + p[2] * x
    start, residual = jnp.array([1.0, 1.0, 0.0]), lambda p: model(p, x) - y
    tol = 1e-12
    return {
        "minimize": lambda *bounds: (
            so.minimize(so.sum_of_squares(residual), start, bounds=bounds, tol=tol).params
        ),
        "least_squares": lambda *bounds: (
            so.least_squares(residual, start, bounds=bounds, tol=tol).params
        ),
        "curve_fit": lambda *bounds: (
            so.curve_fit(model, x, y, start, bounds=bounds, tol=tol).params
        ),
    }


@pytest.mark.quick(1)
@pytest.mark.parametrize("name", ["minimize", "least_squares", "curve_fit"])
def test_a_bound_moves_what_lies_on_it_and_all_that_depends_on_that(name, x64):
    x = jnp.linspace(0.0, 2.0, 12)
    y = 3.0 * jnp.exp(-1.5 * x) - 0.4 * x
    solve = jax.jit(line(x, y)[name])
    lower = jnp.array([-5.0, 0.5, -0.2])  # the slope wants to be -0.4
    upper = jnp.array([2.5, 9.0, jnp.inf])  # and the amplitude 3
    at = solve(lower, upper)
    np.testing.assert_array_equal(at[jnp.array([0, 2])], [2.5, -0.2])
    found, step = jax.jacobian(solve, (0, 1))(lower, upper), 1e-5
    for which, bound in enumerate((lower, upper)):
        for i in np.flatnonzero(np.isfinite(bound)):
            ends = [[lower, upper], [lower, upper]]
            for sign, pair in zip((1, -1), ends, strict=True):
                pair[which] = bound.at[i].add(sign * step)
            expected = (solve(*ends[0]) - solve(*ends[1])) / (2 * step)
            np.testing.assert_allclose(found[which][:, i], expected, atol=1e-6)
    assert found[0][2, 2] == found[1][0, 0] == 1 and not found[0][:, :2].any()
    np.testing.assert_array_equal(found[1][:, 2], 0)  # of an infinite bound


@pytest.mark.slow
def test_derivatives_by_bounds_under_vmap_forward_and_twice(x64):
    def value(top):
        """min (p − 2)⁴ + (q − p)², p ≤ top: (top − 2)⁴, at q = top."""
        f = lambda p: (p["p"] - 2) ** 4 + (p["q"] - p["p"]) ** 2
        bounds = {"p": -9.0, "q": -9.0}, {"p": top, "q": 9.0}
        start = {"p": jnp.array(0.0), "q": jnp.array(0.0)}
        return so.minimize(f, start, bounds=bounds, tol=1e-12)

    def once_and_twice(top):
        both = lambda top: (value(top).value, value(top).params["q"])
        slopes = jax.jacfwd(both)
        return slopes(top), jax.jacrev(lambda top: slopes(top)[0])(top)

    tops = jnp.array([0.5, 1.0])
    (slopes, along), bends = jax.jit(jax.vmap(once_and_twice))(tops)
    assert_close(slopes, 4 * (tops - 2) ** 3)
    assert_close(along, np.ones(2))
    np.testing.assert_allclose(bends, 12 * (tops - 2) ** 2, rtol=1e-8)


def test_equal_bounds_carry_their_parameter_along(x64):
    def solve(at):
        f = lambda p: (p[0] - 1) ** 2 + (p[1] - p[0] ** 2) ** 2
        bounds = jnp.stack([at, -99.0]), jnp.stack([at, 99.0])
        return so.minimize(f, jnp.zeros(2), bounds=bounds).params

    derivative = jax.jit(jax.jacobian(solve))
    for at in (0.5, 1.0, 3.0):  # below, at and above the minimum
        np.testing.assert_allclose(derivative(at), [1.0, 2 * at], rtol=1e-6)
