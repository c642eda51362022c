"""Quasi-Newton matrices, against the textbook recursions in NumPy."""

import jax.numpy as jnp
import numpy as np
import pytest
from tolerances import assert_close

import secondorder as so
from secondorder.objectives._at_point import AtPoint, Face
from secondorder.objectives._base import Plain

N = 5
RNG = np.random.default_rng(4)
HESSIAN = np.diag(np.linspace(1.0, 3.0, N)) + 0.1
KAPPA = np.linalg.cond(HESSIAN)
POINTS = RNG.normal(size=(8, N))


def fed(curvature, points, hessian=HESSIAN):
    """The operator after the gradients ``H x`` of a quadratic were shown at the points."""
    state = curvature.init(jnp.zeros(N))
    for x in points:
        operator, state = curvature.update(
            jnp.asarray(hessian @ x), state, jnp.asarray(x), lambda p: None
        )
    return operator, state


def bfgs_inverse(points, hessian=HESSIAN):
    h = None
    for x, new in zip(points, points[1:], strict=False):
        s, y = new - x, hessian @ (new - x)
        h = (s @ y) / (y @ y) * np.eye(N) if h is None else h
        rho = 1 / (s @ y)
        left = np.eye(N) - rho * np.outer(s, y)
        h = left @ h @ left.T + rho * np.outer(s, s)
    return h


def test_bfgs_is_the_textbook_update_of_the_inverse(x64):
    operator, _ = fed(so.curvature.bfgs(), POINTS)
    assert_close(operator.inverse, bfgs_inverse(POINTS), KAPPA)
    v = jnp.asarray(RNG.normal(size=N))
    assert_close(operator.mv(operator.solve(v, 0.0)), v, KAPPA)


def test_lbfgs_with_room_for_all_pairs_is_bfgs_from_the_newest_scale(x64):
    operator, _ = fed(so.curvature.lbfgs(memory=10), POINTS[:4])
    pairs = [(b - a, HESSIAN @ (b - a)) for a, b in zip(POINTS, POINTS[1:4], strict=False)]
    s, y = pairs[-1]
    h = (s @ y) / (y @ y) * np.eye(N)
    for s, y in pairs:
        rho = 1 / (s @ y)
        left = np.eye(N) - rho * np.outer(s, y)
        h = left @ h @ left.T + rho * np.outer(s, s)
    v = RNG.normal(size=N)
    assert_close(operator.solve(jnp.asarray(v), 0.0), h @ v, KAPPA)
    assert_close(operator.mv(jnp.asarray(h @ v)), v, KAPPA)


def test_lbfgs_forgets_the_oldest_pair(x64):
    full, _ = fed(so.curvature.lbfgs(memory=2), POINTS)
    short, _ = fed(so.curvature.lbfgs(memory=2), POINTS[-3:])
    v = jnp.ones(N)
    assert_close(full.solve(v, 0.0), short.solve(v, 0.0), KAPPA)


def test_sr1_finds_an_indefinite_hessian_exactly_in_n_steps(x64):
    hessian = np.diag([-2.0, -0.5, 1.0, 2.0, 4.0])
    operator, state = fed(so.curvature.sr1(), POINTS[: N + 1], hessian)
    np.testing.assert_allclose(operator.entries, hessian, rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize("name", ["bfgs", "lbfgs"])
def test_a_pair_of_negative_curvature_is_left_out(name, x64):
    curvature = getattr(so.curvature, name)()
    good, state = fed(curvature, POINTS[:3])
    worse, new = curvature.update(
        jnp.asarray(HESSIAN @ POINTS[2]) - 1e3 * jnp.asarray(POINTS[3] - POINTS[2]),
        state, jnp.asarray(POINTS[3]), lambda p: None,
    )  # fmt: skip
    v = jnp.ones(N)
    assert_close(worse.solve(v, 0.0), good.solve(v, 0.0), KAPPA)
    assert int(new.pairs) == int(state.pairs)


@pytest.mark.parametrize("name", ["bfgs", "lbfgs", "sr1"])
def test_the_newest_pair_satisfies_the_secant_equation(name, x64):
    operator, _ = fed(getattr(so.curvature, name)(), POINTS)
    s = jnp.asarray(POINTS[-1] - POINTS[-2])
    np.testing.assert_allclose(operator.mv(s), HESSIAN @ s, rtol=1e-7)


# -------------------------------------------------------------------------------------- in a box

FREE = np.array([True, False, True, True, False])


def on_a_face(curvature, points, hessian=HESSIAN, free=FREE):
    """As :func:`fed`, with every other point on bounds, where the gradient comes masked."""
    state, far = curvature.init(jnp.zeros(len(free))), jnp.full(len(free), jnp.inf)
    for k, x in enumerate(points):
        mask = jnp.asarray(free) if k % 2 else jnp.ones(len(free), bool)
        grad = jnp.asarray(hessian @ x)
        face = Face(-far, far, jnp.asarray(x), grad, mask)
        seen = AtPoint(Plain(lambda p: None), True, face)
        operator, state = curvature.update(jnp.where(mask, grad, 0), state, jnp.asarray(x), seen)
    return operator


def test_on_bounds_the_inverse_is_that_of_the_free_parameters_matrix(x64):
    v = np.where(FREE, RNG.normal(size=N), 0)
    whole = np.linalg.inv(bfgs_inverse(POINTS))
    expected = np.linalg.solve(whole[np.ix_(FREE, FREE)], v[FREE])
    found = np.asarray(on_a_face(so.curvature.bfgs(), POINTS).solve(jnp.asarray(v), 0.0))
    assert_close(found[FREE], expected, KAPPA)
    assert not found[~FREE].any()

    matrix = np.asarray(on_a_face(so.curvature.sr1(), POINTS).mv(jnp.asarray(v)))
    np.testing.assert_allclose(matrix[FREE], HESSIAN[np.ix_(FREE, FREE)] @ v[FREE], rtol=1e-7)
    assert not matrix[~FREE].any()


def test_on_bounds_limited_memory_sees_the_free_part_of_its_pairs(x64):
    points, v = np.where(FREE, POINTS, 0.0), np.where(FREE, RNG.normal(size=N), 0)
    inner = np.ix_(FREE, FREE)
    alone = on_a_face(so.curvature.lbfgs(), points[:, FREE], HESSIAN[inner], np.ones(3, bool))
    found = np.asarray(on_a_face(so.curvature.lbfgs(), points).solve(jnp.asarray(v), 0.0))
    assert_close(found[FREE], alone.solve(jnp.asarray(v[FREE]), 0.0), KAPPA)
    assert not found[~FREE].any()
