"""Running averages of samples: their weights, their schedule, and what is not finite."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import secondorder as so
from secondorder.curvature import (
    axis_basis,
    axis_eigen,
    axis_roots,
    diagonal,
    drift,
    gradient,
    running,
)

G = [1.0, 5.0, 2.0, 7.0, 3.0, 4.0, 6.0]
SQUARES = np.square(G)
DIAGONAL = diagonal(lambda x: x)


def averages(curvature, grads=G):
    """The average after each update, from one compiled update."""
    update = jax.jit(lambda g, s: curvature.update({"w": g}, s, None, None)[1])
    state, seen = curvature.init({"w": jnp.zeros(1)}), []
    for g in grads:
        state = update(jnp.full(1, g), state)
        seen.append(float(state.averages["w"][0]))
    assert update._cache_size() == 1
    return np.asarray(seen)


def test_the_corrected_average_weighs_all_samples_to_one():
    powers = 0.7 ** np.arange(len(G))
    expected = [
        np.sum(powers[: n + 1][::-1] * SQUARES[: n + 1]) / powers[: n + 1].sum()
        for n in range(len(G))
    ]
    np.testing.assert_allclose(
        averages(running(gradient(), DIAGONAL, decay=0.7)), expected, rtol=1e-5
    )


def test_without_correction_it_starts_from_zero():
    found = averages(running(gradient(), DIAGONAL, decay=0.7, debias=False))
    expected, mean = [], 0.0
    for s in SQUARES:
        mean = 0.7 * mean + 0.3 * s
        expected.append(mean)
    np.testing.assert_allclose(found, expected, rtol=1e-5)


@pytest.mark.parametrize("debias", [True, False])
def test_a_decay_of_one_sums(debias):
    found = averages(running(gradient(), DIAGONAL, decay=1.0, debias=debias))
    np.testing.assert_allclose(found, np.cumsum(SQUARES), rtol=1e-6)


def test_samples_are_taken_at_the_first_update_and_each_so_many_after_it():
    found = averages(running(gradient(), DIAGONAL, decay=1.0, sample_every=3))
    taken = [SQUARES[0]] * 3 + [SQUARES[0] + SQUARES[3]] * 3 + [SQUARES[[0, 3, 6]].sum()]
    np.testing.assert_allclose(found, taken, rtol=1e-6)


def frames_of(curvature, grads):
    """The frame after each update, from one compiled update."""
    update = jax.jit(lambda g, s: curvature.update({"w": g}, s, None, None)[1])
    state, frames = curvature.init({"w": grads[0]}), []
    for g in grads:
        state = update(g, state)
        frames.append(np.asarray(state.frame[0][0]))
    assert update._cache_size() == 1
    return [True] + [not np.array_equal(a, b) for a, b in itertools.pairwise(frames)]


@pytest.mark.parametrize("structure", [axis_basis, axis_roots, axis_eigen])
def test_the_expensive_part_is_renewed_on_its_schedule_without_a_retrace(structure):
    grads = [jax.random.normal(jax.random.key(i), (3, 4)) for i in range(7)]
    renewed = frames_of(running(gradient(), structure(), decay=0.9, refresh_every=3), grads)
    assert renewed == [True, False, False, True, False, False, True]


@pytest.mark.quick(1)
@pytest.mark.parametrize("structure", [axis_basis, axis_roots, axis_eigen])
def test_what_has_drifted_is_renewed_and_what_has_not_is_kept(structure):
    same, other = (jax.random.normal(jax.random.key(i), (3, 4)) for i in range(2))
    grads = [same] * 4 + [other] * 2
    assert frames_of(
        running(gradient(), structure(), decay=0.5, refresh_every=drift(0.1)), grads
    ) == [
        *[True, False, False, False],  # the first is of no schedule
        *[True, True],
    ]
    kept = running(gradient(), structure(), decay=0.5, refresh_every=drift(1e9))
    assert frames_of(kept, grads) == [True] + [False] * 5
    seldom = running(gradient(), structure(), decay=0.5, refresh_every=drift(0.1, measure_every=5))
    assert frames_of(seldom, grads) == [True, False, False, False, False, True]


@pytest.mark.parametrize("structure", [axis_basis, axis_roots, axis_eigen])
def test_drift_is_the_largest_distance_of_a_factor_from_what_was_derived_of_it(structure, x64):
    rng = np.random.default_rng(0)
    params, parts = {"v": np.zeros(2), "w": np.zeros((3, 4))}, structure()
    averages, frame = map(list, parts.init(params))
    grams = [x @ x.T for x in (rng.normal(size=(3, 5)), rng.normal(size=(4, 9)))]
    averages[1] = averages[1]._replace(factors=tuple(g[None] for g in grams))
    if structure is axis_roots:
        frame[1] = tuple(0.5 * np.eye(len(g))[None] for g in grams)
        damped = [g + 1e-6 * np.eye(len(g)) for g in grams]
        expected = [np.linalg.norm(g @ g / 16 - g) / np.linalg.norm(g) for g in damped]
    else:
        q = [np.linalg.qr(rng.normal(size=g.shape))[0] for g in grams]
        frame[1] = tuple(x[None] for x in q)
        turned = [x.T @ g @ x for x, g in zip(q, grams, strict=True)]
        off = [t - np.diag(np.diag(t)) for t in turned]
        expected = [np.linalg.norm(x) / np.linalg.norm(g) for x, g in zip(off, grams, strict=True)]
    drift_of = jax.jit(lambda averages: parts.drift(params, averages, frame, 0.0))
    np.testing.assert_allclose(drift_of(averages), max(expected), rtol=1e-6)
    if structure is not axis_roots:  # whose ε is in the gradient's units
        tiny = jax.tree.map(lambda x: x * 1e-30, averages)
        np.testing.assert_allclose(drift_of(tiny), max(expected), rtol=1e-6)
        assert drift_of(jax.tree.map(np.zeros_like, averages)) == 0


def test_what_is_not_renewed_is_not_paid():
    calls, parts = [], axis_eigen()

    def counted(*args):
        jax.debug.callback(lambda: calls.append(None))
        return parts.refresh(*args)

    curvature = running(
        gradient(), parts._replace(refresh=counted), decay=0.5, refresh_every=drift(0.1)
    )
    grads = [jax.random.normal(jax.random.key(0), (3, 4))] * 4
    assert frames_of(curvature, grads) == [True, False, False, False]
    jax.effects_barrier()
    assert len(calls) == 1


def test_drift_without_a_tolerance_or_a_frame_to_measure_is_refused():
    with pytest.raises(ValueError, match="tolerance=0; pass a positive number"):
        drift(0)
    unknown = axis_basis()._replace(drift=None)
    with pytest.raises(ValueError, match="no drift of its frame"):
        running(gradient(), unknown, decay=0.9, refresh_every=drift())
    running(gradient(), DIAGONAL, decay=0.9, refresh_every=drift())  # has nothing to refresh


def test_each_update_draws_anew_and_a_saved_state_draws_the_same():
    f = so.compose(so.sigmoid_cross_entropy(jnp.ones(50)), lambda p: p["w"] * jnp.ones(50))
    curvature = running(so.curvature.fisher_sample(), DIAGONAL, decay=0.0)
    params = {"w": jnp.ones(1)}

    @jax.jit
    def update(state):
        operator, new = curvature.update(params, state, params, f)
        return operator.entries["w"], new

    first, state = update(curvature.init(params))
    second, _ = update(state)
    again, _ = update(state)
    assert first != second == again


@pytest.mark.quick(2)
@pytest.mark.parametrize("structure", [DIAGONAL, axis_basis(), axis_roots(), axis_eigen()])
def test_what_is_too_large_for_the_memory_is_refused_and_not_remembered(structure):
    curvature = running(gradient(), structure, decay=0.9)
    tx = so.scale_by_curvature(curvature, so.solvers.apply_inverse(), so.trust.fixed(1e-8))
    params = {"w": jnp.ones((3, 2))}
    state = tx.init(params)
    update = jax.jit(tx.update)
    _, state = update({"w": jnp.ones((3, 2))}, state, params)
    huge = {"w": jnp.full((3, 2), 1e30)}  # finite, but its square is not
    updates, after = update(huge, state, params)
    assert np.all(updates["w"] == 0)
    assert not so.diagnostics(after)["accepted"]
    kept = lambda s: jax.tree.leaves((s.curvature.averages, s.curvature.frame, s.curvature.count))
    for a, b in zip(kept(state), kept(after), strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_policy_that_evaluates_still_needs_the_objective():
    curvature, params = running(gradient(), DIAGONAL, decay=0.9), {"w": jnp.ones(2)}
    closed = so.scale_by_curvature(curvature, so.solvers.apply_inverse(), so.trust.damping())
    with pytest.raises(ValueError, match="needs value_fn"):
        closed.update(params, closed.init(params), params)
    with pytest.raises(TypeError, match="must be a function"):
        closed.update(params, closed.init(params), params, value_fn=3.0)
    f = lambda p: jnp.sum(p["w"] ** 2)
    updates, state = closed.update(params, closed.init(params), params, value_fn=f)
    assert so.diagnostics(state)["accepted"] and np.all(updates["w"] < 0)
