"""The loop inside bounds: searches on the projected path, steps cut where they end."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.optimize
from tolerances import assert_close, rounding

import secondorder as so

SEARCHES = {
    "newton": so.newton,
    "gauss_newton": so.gauss_newton,
    "bfgs": so.bfgs,
    "lbfgs": so.lbfgs,
    "gradient_descent": so.gradient_descent,
    "optax.lbfgs": optax.lbfgs,
    "optax.backtracking": lambda: optax.chain(
        optax.sgd(1.0), optax.scale_by_backtracking_linesearch(30, store_grad=True)
    ),
}
REGIONS = {
    name: getattr(so, name) for name in ("trust_region_newton", "sr1", "levenberg_marquardt")
}


@pytest.mark.quick(1)
@pytest.mark.parametrize("name", [k for k in SEARCHES if k != "gauss_newton"])  # it sees no curve
def test_a_search_along_a_ray_out_of_the_box_ends_on_the_bound(name):
    f = lambda p: -p[0]
    solution = so.minimize(f, jnp.zeros(2), SEARCHES[name](), bounds=(-1.0, 1.0))
    assert float(solution.value) == -1.0 == float(f(solution.params))
    assert bool(solution.success)


N, ROWS = 5, 8


def boxed(seed, dtype):
    """Random least squares: boxes, half-lines, points; starts inside and on bounds."""
    random = np.random.default_rng(seed)
    a, b, c = random.normal(size=(ROWS, N)), random.normal(size=ROWS), random.normal(size=N)
    a[:, 0] *= 10.0 ** random.uniform(-1, 1)
    lower, upper = c - random.exponential(size=N), c + random.exponential(size=N)
    kind = random.integers(0, 5, size=N)
    lower, upper = np.where(kind == 0, -np.inf, lower), np.where(kind == 1, np.inf, upper)
    upper = np.where(kind == 2, lower, upper)
    if seed % 3 == 0:
        lower, upper, c = np.zeros(N), np.full(N, np.inf), np.abs(c)  # nonnegative least squares
    start = np.where(random.uniform(size=N) < 0.5, np.clip(c, lower, upper), lower)
    start = np.where(np.isfinite(start), start, upper)
    return [jnp.asarray(x, dtype) for x in (a, b, lower, upper, start)]


@pytest.mark.quick(1)
@pytest.mark.parametrize("name", [*SEARCHES, *REGIONS])
def test_boxed_least_squares_end_where_lsq_linear_does(name, x64):
    method = (SEARCHES | REGIONS)[name]

    @jax.jit
    def solve(a, b, lower, upper, start):
        f = so.sum_of_squares(lambda p: a @ p - b)
        solution = so.minimize(f, start, method(), bounds=(lower, upper), max_steps=2000)
        return solution, f(solution.params)

    slow = name in ("gradient_descent", "optax.backtracking")
    for seed in range(12):
        data = boxed(seed, jnp.float64)
        a, b, lower, upper, _ = map(np.asarray, data)
        solution, value = solve(*data)
        p = np.asarray(solution.params)
        assert np.all((lower <= p) & (p <= upper))
        scale = np.linalg.cond(a) * np.finfo(p.dtype).eps
        np.testing.assert_allclose(solution.value, value, rtol=100 * scale)
        if slow and not bool(solution.success):
            continue
        assert bool(solution.success), (seed, solution.message)
        wide = np.where(upper > lower, upper, upper + 1e-12)  # the peer refuses equal bounds
        peer = scipy.optimize.lsq_linear(a, b, (lower, wide), method="bvls", tol=1e-14)
        noise = rounding(np.linalg.cond(a) ** 2, b @ b)
        np.testing.assert_allclose(solution.value, peer.cost, rtol=1e-6, atol=noise)


@pytest.mark.slow
def test_a_bound_that_was_reached_is_left_again(x64):
    """The gradient at the bound changes its sign on the way; a search must not hide it."""
    f = lambda p: 0.5 * (p[0] - p[1]) ** 2 + 0.5 * (p[1] - 3.0) ** 2
    for method in (so.newton(), so.bfgs(), so.lbfgs(), optax.lbfgs()):
        solution = so.minimize(f, jnp.array([0.0, -5.0]), method, bounds=(0.0, 10.0))
        assert bool(solution.success)
        np.testing.assert_allclose(solution.params, 3.0, rtol=1e-6)


def test_the_region_shrinks_from_the_length_of_the_step_that_was_cut(x64):
    f = lambda p: 1e-9 * (p[0] - 1e8) ** 2 + 1e4 * jnp.sqrt(1 + p[1] ** 2)
    upper = jnp.array([1.0, jnp.inf])
    solution = so.minimize(
        f, jnp.array([0.0, 3.0]), so.trust_region_newton(), bounds=(-jnp.inf, upper)
    )
    # 20 with 13 rejections where the length is that of the step before the cut.
    assert int(solution.steps) <= 12 and bool(solution.success)
    np.testing.assert_allclose(solution.params, [1.0, 0.0], atol=1e-6)


@pytest.mark.quick(1)
@pytest.mark.parametrize("bounds", [None, (-1.0, 0.7)])
def test_the_value_of_a_search_in_low_precision_is_that_of_the_rounded_parameters(bounds):
    f = lambda p: jnp.sum(jnp.cosh(p.astype(jnp.float32) - 0.3))
    start = jnp.array([2.0, -1.0], jnp.bfloat16)
    solution = so.minimize(f, start, so.lbfgs(), bounds=bounds, max_steps=20)
    np.testing.assert_allclose(solution.value, f(solution.params), rtol=1e-6)


# ---------------------------------------------------------------------- success, in any unit


def in_units(unit, factor):
    """A convex function around (1, 2, −½), its parameters in other units and so its values."""

    def value(p):
        q = p / unit
        return factor * (jnp.sum(jnp.cosh(q - jnp.array([1.0, 2.0, -0.5]))) + (q[0] * q[1]) ** 2)

    return value


UNIT_FREE = (
    "newton", "trust_region_newton", "cubic_newton", "newton_cg", "bfgs", "lbfgs",
    "gradient_descent",
)  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("name", UNIT_FREE)
def test_neither_steps_nor_status_change_with_the_units(name, x64):
    method = getattr(so, name)
    solve = jax.jit(
        lambda unit, factor, start: so.minimize(in_units(unit, factor), start, method())
    )
    for start in (jnp.zeros(3), jnp.full(3, 0.5)):
        plain = solve(1.0, 1.0, start=start)
        assert bool(plain.success)
        for unit, factor in ((2.0**40, 1.0), (2.0**-40, 1.0), (1.0, 2.0**40), (2.0**30, 2.0**-40)):
            other = solve(unit, factor, start=unit * start)  # powers of two: the same roundings
            assert int(other.steps) == int(plain.steps) and bool(other.success), (unit, factor)
            assert_close(other.params / unit, plain.params)


OPEN_LOOP = {
    "optax.lbfgs": optax.lbfgs,
    "optax.adam": lambda: optax.adam(0.1),
    "optax.sgd": lambda: optax.sgd(0.1),
    "optax.backtracking": SEARCHES["optax.backtracking"],
    "sr1": so.sr1,
}


@pytest.mark.quick(1)
@pytest.mark.parametrize("name", [*UNIT_FREE, *OPEN_LOOP])
@pytest.mark.parametrize("start", [0.0, 1.0])
def test_parameters_of_a_large_natural_size_are_no_success_at_the_start(name, start):
    """In float32 a size of 1e5 makes a gradient of 1e-5, below any absolute tolerance."""
    method, unit = OPEN_LOOP.get(name) or getattr(so, name), 1e5
    f = in_units(unit, 1.0)
    solution = so.minimize(f, jnp.full(3, start), method(), max_steps=200)
    slope = jnp.linalg.norm(jax.grad(f)(solution.params) * unit)
    assert not bool(solution.success) or float(slope) < 1e-2
    if name in UNIT_FREE:
        assert bool(solution.success) and int(solution.steps) > 0


@pytest.mark.quick(1)
@pytest.mark.parametrize("name", ["newton", "trust_region_newton", "bfgs"])
def test_a_start_at_a_solution_is_one_within_a_few_steps(name, x64):
    method, f = getattr(so, name), in_units(1.0, 1.0)
    solve = jax.jit(lambda start: so.minimize(f, start, method()))
    first = solve(jnp.zeros(3))
    again = solve(first.params)
    assert bool(again.success) and int(again.steps) <= 3
