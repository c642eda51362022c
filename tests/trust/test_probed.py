"""Several radii at once: the largest whose gain is enough is taken, and is the next."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tolerances import assert_close

import secondorder as so


def bowl(p):
    return 0.5 * jnp.sum(jnp.array([1.0, 4.0]) * (p - 8.0) ** 2)


def banana(p):
    return jnp.array([10 * (p[1] - p[0] ** 2), 1 - p[0]])


def updated(fn, params, policy):
    tx = so.trust_region_newton(trust=policy)
    value, grad = jax.value_and_grad(fn)(params)
    updates, state = tx.update(grad, tx.init(params), params, value=value, grad=grad, value_fn=fn)
    return updates, so.diagnostics(state)


def test_where_the_model_is_right_the_largest_radius_is_taken(x64):
    updates, now = updated(bowl, jnp.zeros(2), so.trust.probed(0.5, ratio=3.0))
    assert_close(now["scale"], 1.5)
    assert now["accepted"] and bool(jnp.all(updates > 0)) and bool(jnp.all(updates < 8))


@pytest.mark.slow
def test_a_whole_step_within_its_region_leaves_the_radius(x64):
    updates, now = updated(bowl, jnp.full(2, 7.0), so.trust.probed(100.0))
    assert_close(updates, jnp.ones(2))
    assert now["scale"] >= 100.0


def wall(p):
    """Infinite beyond a ball around the start."""
    return jnp.where(jnp.sum(p**2) < 0.1**2, bowl(p), jnp.inf)


def test_radii_whose_value_is_infinite_are_passed_over_within_one_update(x64):
    updates, now = updated(wall, jnp.zeros(2), so.trust.probed(1.0, ratio=4.0, count=4))
    assert now["accepted"] and 0 < float(jnp.linalg.norm(updates)) < 0.1
    assert_close(now["scale"], 1 / 16)


@pytest.mark.slow
def test_where_no_radius_descends_the_next_ones_begin_below_the_smallest(x64):
    updates, now = updated(wall, jnp.zeros(2), so.trust.probed(1e3, ratio=4.0, count=3))
    assert not now["accepted"] and not np.any(updates)
    assert_close(now["scale"], 1e3 / 4**2)


METHODS = ("levenberg_marquardt", "dogleg", "hybrid_newton", "trust_region_newton", "newton_cg")


@pytest.mark.quick(2)
@pytest.mark.parametrize("name", METHODS)
def test_a_valley_takes_no_more_steps_than_one_radius_at_a_time(name, x64):
    method = getattr(so, name)
    start = jnp.array([-1.2, 1.0])
    known, found = (
        so.least_squares(banana, start, method(**options))
        for options in ({}, {"trust": so.trust.probed()})
    )
    assert found.success and int(found.steps) <= int(known.steps)
    assert_close(found.params, jnp.ones(2), 1e6)
    assert int(found.evaluations.jacobians) <= int(found.steps) + 1
    if name == "levenberg_marquardt":
        assert int(found.evaluations.jacobians) >= int(found.steps)
    assert_close(found.value, 0.5 * jnp.sum(banana(found.params) ** 2), norm=1.0)


def test_within_bounds_every_radius_is_cut(x64):
    seen = []

    def watched(p):
        jax.debug.callback(lambda p: seen.append(np.asarray(p)), p)
        return banana(p)

    method = so.levenberg_marquardt(trust=so.trust.probed())
    solution = so.least_squares(watched, jnp.array([-1.2, 0.5]), method, bounds=(-2.0, 0.8))
    jax.effects_barrier()
    assert solution.success and np.all(np.concatenate(seen) <= 0.8)
    assert_close(solution.params, jnp.array([0.8, 0.64]), 1e6)


def test_lanes_are_those_of_single_solves(x64):
    method = so.levenberg_marquardt(trust=so.trust.probed())
    solve = lambda start: so.least_squares(banana, start, method)
    starts = jnp.array([[-1.2, 1.0], [3.0, 3.0], [0.5, -2.0]])
    batch = jax.jit(jax.vmap(solve))(starts)
    for k, start in enumerate(starts):
        alone = solve(start)
        assert int(batch.steps[k]) == int(alone.steps)
        assert_close(batch.params[k], alone.params, 1e6)
