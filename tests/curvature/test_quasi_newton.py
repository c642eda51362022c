"""Quasi-Newton matrices, against the textbook recursions in NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tolerances import assert_close, rounding

import secondorder as so
from secondorder.curvature._quasi_newton import _self_scaled
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


@pytest.mark.parametrize("name", ["bfgs", "lbfgs", "ssbfgs", "ssbroyden"])
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


@pytest.mark.parametrize("name", ["bfgs", "lbfgs", "sr1", "ssbfgs", "ssbroyden"])
def test_the_newest_pair_satisfies_the_secant_equation(name, x64):
    operator, _ = fed(getattr(so.curvature, name)(), POINTS)
    s = jnp.asarray(POINTS[-1] - POINTS[-2])
    np.testing.assert_allclose(operator.mv(s), HESSIAN @ s, rtol=1e-7)


# ------------------------------------------------------------------------------------ self-scaled

LENGTHS = (0.3, 1.0, 0.6, 1.3, 0.2, 1.0, 0.9)


def bowl_slope(x, sizes):
    """The gradient of ``Σ sizes cosh(x)``."""
    return sizes * np.sinh(x)


def along_its_own_directions(curvature, sizes, lengths=LENGTHS):
    """The points, and the inverse at each, of steps ``−α H g``."""

    @jax.jit
    def update(g, state, x):
        operator, state = curvature.update(g, state, x, lambda p: None)
        return operator.inverse, state

    x = np.linspace(1.0, 2.0, len(sizes))
    state, points, inverses = curvature.init(jnp.asarray(x)), [x], []
    for length in lengths:
        inverse, state = update(jnp.asarray(bowl_slope(x, sizes)), state, jnp.asarray(x))
        inverses.append(np.asarray(inverse))
        x = x - length * (inverses[-1] @ bowl_slope(x, sizes))
        points.append(x)
    return points, inverses


def ssbfgs_of_the_paper(b, h, n):
    return 1.0, min(1.0, 1 / b)


def ssbroyden_of_the_paper(b, h, n):
    a = b * h - 1
    c = np.sqrt(abs(a) / (1 + a))
    rho = min(1.0, h * (1 - c))
    theta = max((rho - 1) / a, min(1 / rho, (1 - b) / b))
    sigma = 1 + a * theta
    power, scale = abs(sigma) ** (1 / (1 - n)), min(1.0, 1 / b)
    tau = scale * min(power, 1 / theta) if theta > 0 else min(scale * power, sigma)
    return (1 - theta) / sigma, tau


def family_update(h, s, y, phi, tau):
    hy, sy = h @ y, s @ y
    yhy = y @ hy
    v = s / sy - hy / yhy
    kept = h - np.outer(hy, hy) / yhy + phi * yhy * np.outer(v, v)
    return kept / tau + np.outer(s, s) / sy


PAPERS = {"ssbfgs": ssbfgs_of_the_paper, "ssbroyden": ssbroyden_of_the_paper}
SIZES = {"even": np.linspace(1.0, 3.0, N), "uneven": np.geomspace(0.01, 100.0, N)}


@pytest.mark.parametrize("sizes", SIZES)
@pytest.mark.parametrize("name", PAPERS)
def test_self_scaled_updates_are_the_papers_along_their_own_steps(name, sizes, x64):
    points, inverses = along_its_own_directions(getattr(so.curvature, name)(), SIZES[sizes])
    branches, h = set(), None
    for old, new, found in zip(points, points[1:], inverses[1:], strict=False):
        s, y = new - old, bowl_slope(new, SIZES[sizes]) - bowl_slope(old, SIZES[sizes])
        if h is None:
            h, phi, tau = (s @ y) / (y @ y) * np.eye(N), 1.0, 1.0
        else:
            b, long = s @ np.linalg.solve(h, s) / (s @ y), y @ h @ y / (s @ y)
            phi, tau = PAPERS[name](b, long, N)
            branches |= {phi < 1, tau < 1}
        h = family_update(h, s, y, phi, tau)
        assert_close(found, h, 1e4 * np.linalg.cond(h))
    assert True in branches  # the case is not that of BFGS


def test_without_scaling_the_self_scaled_family_has_bfgs(x64):
    plain = _self_scaled(lambda b, h, n: (1.0, 1.0))
    found, _ = fed(plain, POINTS)
    assert_close(found.inverse, bfgs_inverse(POINTS), KAPPA)


@jax.jit
def taught(name_is_broyden, start, x, g):
    """The inverses after points and gradients of any kind, from a given first matrix."""

    def of(curvature):
        def one(start, x, g):
            state = curvature.init(x[0])._replace(model=start, pairs=jnp.asarray(1, jnp.int32))
            for point, slope in zip(x, g, strict=True):
                operator, state = curvature.update(slope, state, point, lambda p: None)
            return operator.inverse

        return jax.vmap(one)(start, x, g)

    broyden, bfgs = of(so.curvature.ssbroyden()), of(so.curvature.ssbfgs())
    return jnp.where(name_is_broyden, broyden, bfgs)


@pytest.mark.parametrize("broyden", [False, True])
def test_self_scaled_updates_stay_positive_definite_for_any_pair_of_positive_curvature(
    broyden, x64
):
    rng, count = np.random.default_rng(7), 300
    half = rng.normal(size=(count, 4, 4)) * np.geomspace(0.1, 10, 4)
    start = half @ half.swapaxes(1, 2) + 1e-2 * np.eye(4)
    s, y, g = rng.normal(size=(3, count, 4))
    y = y * np.sign(np.sum(s * y, axis=1, keepdims=True)) * 10.0 ** rng.uniform(-4, 4, (count, 1))
    own = rng.random(count) < 0.5  # half of the steps are its own, −αHg
    s = np.where(own[:, None], -np.einsum("kij,kj->ki", start, g), s)
    y = y * np.sign(np.sum(s * y, axis=1, keepdims=True))
    x, slopes = np.stack([0 * s, s], axis=1), np.stack([g, g + y], axis=1)
    inverse = np.asarray(taught(broyden, start, x, slopes))
    sy, scale = np.sum(s * y, axis=1), np.linalg.norm(inverse, axis=(1, 2))
    values = np.linalg.eigvalsh(inverse)
    assert np.all(values[:, 0] > -rounding(10) * scale) and np.mean(values[:, 0] > 0) > 0.99
    seen = np.einsum("kij,kj->ki", inverse, y)
    assert np.all(sy > 0)
    sizes = scale * np.linalg.norm(y, axis=1) + np.linalg.norm(s, axis=1)
    assert np.all(np.linalg.norm(seen - s, axis=1) <= rounding(100) * sizes)


ODD_PAIRS = {
    "the matrix is right already": (np.eye(4), [-1.0, 2, 0, 0], [-1.0, 2, 0, 0], [1.0, -2, 0, 0]),
    "no step": (np.eye(4), [0.0] * 4, [0.0] * 4, [1.0, 0, 0, 0]),
    "no change of the gradient": (np.eye(4), [1.0, 0, 0, 0], [0.0] * 4, [1.0, 0, 0, 0]),
    "negative curvature": (np.eye(4), [1.0, 0, 0, 0], [-1.0, 0, 0, 0], [1.0, 0, 0, 0]),
    "no slope along the step": (np.eye(4), [1.0, 0, 0, 0], [1.0, 1, 0, 0], [0.0, 1, 0, 0]),
    "no gradient": (np.eye(4), [1.0, 0, 0, 0], [1.0, 1, 0, 0], [0.0] * 4),
    "huge": (1e150 * np.eye(4), [1e150, 0, 0, 0], [1.0, 1, 0, 0], [-1.0, 0, 0, 0]),
    "tiny": (1e-150 * np.eye(4), [1e-150, 0, 0, 0], [1.0, 1, 0, 0], [-1.0, 0, 0, 0]),
    "not definite": (np.diag([9.0, 1, -1, 1]), [1.0, 1, 1, 0], [1.0, 1, 1, 0], [0.0, 0, 1, 0]),
}  # fmt: skip


@pytest.mark.parametrize("broyden", [False, True])
def test_odd_pairs_leave_a_positive_definite_matrix(broyden, x64):
    start, s, y, g = (
        np.stack([np.asarray(case[k], float) for case in ODD_PAIRS.values()]) for k in range(4)
    )
    x, slopes = np.stack([0 * s, s], axis=1), np.stack([g, g + y], axis=1)
    with jax.debug_nans(True):
        inverse = np.asarray(taught(broyden, start, x, slopes))
    for name, found, first, step, change in zip(ODD_PAIRS, inverse, start, s, y, strict=True):
        assert np.all(np.linalg.eigvalsh(found / np.max(found)) > 0), name
        if step @ change > 0:
            np.testing.assert_allclose(found @ change, step, atol=rounding(1e4, abs(step).max()))
        else:
            np.testing.assert_array_equal(found, first, name)


@pytest.mark.parametrize("name", ["ssbfgs", "ssbroyden"])
def test_of_one_parameter_the_newest_pair_is_all(name, x64):
    hessian = np.array([[3.0]])
    state = getattr(so.curvature, name)().init(jnp.zeros(1))
    for x in (1.0, 0.5, -0.7, 0.1):
        operator, state = getattr(so.curvature, name)().update(
            jnp.asarray(hessian @ [x]), state, jnp.asarray([x]), lambda p: None
        )
    assert_close(operator.inverse, 1 / hessian)


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
