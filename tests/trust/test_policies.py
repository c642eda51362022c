"""The policies: their numbers by hand, and what they do with a trial that is not finite."""

import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tolerances import rounding

from secondorder import trust
from secondorder.trust import Trial

ROUNDING = rounding(dtype="float32")
PARAMS = jnp.zeros(2)


def trial(gain=1.0, length=1.0, boundary=False, finite=True) -> Trial:
    return Trial(
        gain=lambda: jnp.asarray(gain, jnp.float32),
        predicted=jnp.asarray(-1.0),
        length=jnp.asarray(length, jnp.float32),
        boundary=jnp.asarray(boundary),
        finite=jnp.asarray(finite),
    )


def updated(policy, trial, state):
    """The state after an attempt with this outcome."""
    step = object()
    chosen = lambda *ignored: step
    attempt = types.SimpleNamespace(
        choose=chosen,
        whole=chosen,
        trial=lambda step, last=(): trial,
        radius=state.scale,
        probe=lambda radii, target: (step, radii[jnp.where(trial.gain() >= target, 0, -1)]),
        remembered=lambda step, gain, accepted, last: last,
    )
    taken, state = policy.update(attempt, state)
    assert taken is step
    return state


def after(policy, *trials):
    state = policy.init(PARAMS)
    for each in trials:
        state = updated(policy, each, state)
    return state


def scales(policy, *trials) -> list[float]:
    return [float(after(policy, *trials[:i]).scale) for i in range(1, len(trials) + 1)]


NO = -np.inf  # the gain of a trial whose value is NaN or infinite

# Fixed


def never():
    raise AssertionError("an open-loop policy asked for the gain")


def test_fixed_takes_every_finite_step_without_an_evaluation():
    free = trial()._replace(gain=never)
    state = after(trust.fixed(0.5), free, free)
    assert state.scale == 0.5 and state.accepted and np.isposinf(state.gain) and state.count == 2


def test_fixed_refuses_a_step_that_is_not_finite_and_goes_on():
    state = after(trust.fixed(0.5), trial(finite=False)._replace(gain=never))
    assert not state.accepted and state.scale == 0.5
    assert updated(trust.fixed(0.5), trial(), state).accepted


def test_fixed_reads_a_schedule_by_the_count_of_updates():
    policy = trust.fixed(lambda count: 1.0 / (1 + count))
    state, seen = policy.init(PARAMS), []
    for _ in range(4):
        seen.append(float(policy.scale(state)))
        state = updated(policy, trial(), state)
    np.testing.assert_allclose(seen, [1, 1 / 2, 1 / 3, 1 / 4], rtol=ROUNDING)


# Damping, by Nielsen


@pytest.mark.parametrize(
    ("gain", "factor"),
    [(1.0, 1 / 3), (0.9, 0.488), (0.75, 0.875), (0.5, 1.0), (0.25, 1.125), (0.01, 1.941192)],
)
def test_nielsen_eases_the_damping_smoothly_with_the_gain(gain, factor):
    state = after(trust.damping(1.0), trial(gain))
    np.testing.assert_allclose(state.scale, factor, rtol=ROUNDING)
    assert state.accepted and state.factor == 2
    np.testing.assert_allclose(state.gain, gain, rtol=ROUNDING)


def test_nielsen_never_eases_by_more_than_three_however_large_the_gain():
    np.testing.assert_allclose(after(trust.damping(1.0), trial(40.0)).scale, 1 / 3, rtol=ROUNDING)


def test_nielsen_raises_the_damping_ever_faster_while_steps_are_rejected():
    bad = trial(-0.1)
    assert scales(trust.damping(1.0), bad, bad, bad, bad) == [2, 8, 64, 1024]
    assert not after(trust.damping(1.0), bad).accepted
    # and starts from 2 again after a success
    state = after(trust.damping(1.0), bad, bad, trial(0.5), bad)
    assert state.scale == 16 and state.factor == 4


# Damping, by Martens


def test_between_two_trials_every_finite_step_is_taken_and_the_damping_stays():
    policy = trust.damping(1.0, trial_every=3)
    good, poor = trial(gain=1.0), trial(gain=-1.0)
    assert scales(policy, good, poor, poor, good) == pytest.approx(
        [1 / 3, 1 / 3, 1 / 3, 1 / 9], rel=ROUNDING
    )
    between = after(policy, good, poor)
    assert between.accepted and jnp.isposinf(between.gain)
    assert not after(policy, good, trial(finite=False)).accepted


def test_after_a_rejection_each_step_is_tried_until_one_is_taken():
    policy, poor = trust.damping(1.0, trial_every=3), trial(gain=-1.0)
    assert not after(policy, poor, poor).accepted
    assert after(policy, poor, trial(gain=1.0), poor).accepted


@pytest.mark.parametrize(
    ("gain", "factor"), [(1.0, 2 / 3), (0.76, 2 / 3), (0.5, 1.0), (0.24, 1.5), (0.01, 1.5)]
)
def test_martens_moves_the_damping_by_two_thirds(gain, factor):
    state = after(trust.damping(1.0, adapt=trust.martens), trial(gain))
    np.testing.assert_allclose(state.scale, factor, rtol=ROUNDING)
    assert state.accepted


def test_martens_raises_the_damping_fourfold_at_each_rejection():
    bad = trial(-0.1)
    assert scales(trust.damping(1.0, adapt=trust.martens), bad, bad, bad) == [4, 16, 64]


# The radius


def test_a_good_step_at_the_boundary_doubles_the_radius():
    policy = trust.radius(1.0)
    assert after(policy, trial(0.8, boundary=True)).scale == 2
    assert after(policy, trial(0.8, boundary=False)).scale == 1
    assert after(policy, trial(0.7, boundary=True)).scale == 1


def test_the_radius_never_exceeds_its_maximum():
    good = trial(1.0, boundary=True)
    assert scales(trust.radius(1.0, maximum=3.0), good, good, good) == [2, 3, 3]


def test_a_poor_step_leaves_a_quarter_of_its_length():
    state = after(trust.radius(1.0), trial(0.2, length=0.8))
    np.testing.assert_allclose(state.scale, 0.2, rtol=ROUNDING)
    assert state.accepted
    state = after(trust.radius(1.0), trial(-1.0, length=0.8))
    np.testing.assert_allclose(state.scale, 0.2, rtol=ROUNDING)
    assert not state.accepted


def test_an_infinite_radius_shrinks_to_the_first_rejected_steps_length():
    state = after(trust.radius(), trial(-1.0, length=8.0))
    assert state.scale == 2 and not state.accepted
    assert jnp.isinf(after(trust.radius(), trial(1.0, length=8.0)).scale)


# The weight of a cubic term


@pytest.mark.parametrize(("gain", "factor"), [(1.0, 0.25), (0.91, 0.25), (0.5, 1.0), (0.2, 2.0)])
def test_the_cubic_weight_moves_with_the_gain(gain, factor):
    state = after(trust.cubic(1.0), trial(gain))
    assert state.scale == factor and state.accepted


def test_a_rejection_raises_the_cubic_weight_fourfold_and_to_where_it_matters():
    assert scales(trust.cubic(1.0), trial(-1.0), trial(-1.0)) == [4, 16]
    # From 0 the first rejection takes the problem's own unit, |m(d)| / ‖d‖³ = 1/8.
    assert scales(trust.cubic(0.0), trial(-1.0, length=2.0)) == [0.125]
    with pytest.raises(ValueError, match=r"trust.cubic got initial=-1"):
        trust.cubic(-1.0)


# What all closed loops share

CLOSED = {
    "nielsen": trust.damping(1.0),
    "martens": trust.damping(1.0, adapt=trust.martens),
    "radius": trust.radius(1.0),
    "probed": trust.probed(1.0),
    "cubic": trust.cubic(1.0),
}
closed = pytest.mark.parametrize("name", CLOSED)


def strength(name, state) -> float:
    """How strongly the state holds the next step back."""
    return 1 / float(state.scale) if name in ("radius", "probed") else float(state.scale)


@closed
def test_nearly_any_decrease_is_accepted_and_none_below(name):
    assert after(CLOSED[name], trial(2e-4)).accepted
    assert not after(CLOSED[name], trial(0.5e-4)).accepted
    assert not after(CLOSED[name], trial(0.0)).accepted


@closed
@pytest.mark.parametrize("broken", [trial(NO), trial(1.0, finite=False)], ids=["value", "step"])
def test_a_trial_that_is_not_finite_is_rejected_and_holds_the_next_step_back(name, broken):
    policy = CLOSED[name]
    state = after(policy, broken)
    assert not state.accepted
    assert strength(name, state) > strength(name, policy.init(PARAMS))


@closed
def test_a_step_of_infinite_or_unknown_length_leaves_a_finite_scale(name):
    for length in (np.inf, np.nan):
        state = after(CLOSED[name], trial(NO, length=length, finite=False))
        assert np.isfinite(state.scale) and state.scale > 0 and not state.accepted
    overflow = trial(NO, length=np.inf, finite=False)
    assert np.isfinite(after(trust.radius(), overflow, overflow).scale)


@closed
def test_after_a_thousand_rejections_it_comes_back(name):
    policy = CLOSED[name]
    reject = jax.jit(lambda state: updated(policy, trial(NO, length=state.scale), state))
    accept = jax.jit(
        lambda state: updated(policy, trial(1.0, length=state.scale, boundary=True), state)
    )
    state = policy.init(PARAMS)
    for _ in range(1000):
        state = reject(state)
    worst = strength(name, state)
    assert np.isfinite(worst) and np.isfinite(state.factor)
    for _ in range(300):
        state = accept(state)
    assert strength(name, state) < 1


@closed
def test_the_state_keeps_its_types(name):
    policy = CLOSED[name]
    state = policy.init(jnp.zeros(2, jnp.bfloat16))
    assert {x.dtype for x in (state.scale, state.factor, state.gain)} == {jnp.dtype("float32")}
    describe = lambda s: [(x.dtype, x.shape, x.weak_type) for x in jax.tree.leaves(s)]
    assert describe(updated(policy, trial(), state)) == describe(state)


@pytest.mark.parametrize("value", [0.0, -1.0, float("nan")])
def test_a_first_scale_that_is_not_positive_is_refused_in_a_sentence(value):
    with pytest.raises(ValueError, match=r"trust.damping got initial=.*pass a positive number"):
        trust.damping(value)
    with pytest.raises(ValueError, match=r"trust.radius got initial=.*pass a positive number"):
        trust.radius(value)
    with pytest.raises(ValueError, match=r"trust.radius got maximum="):
        trust.radius(1.0, maximum=value)


# A search along the step


def test_a_search_lowers_damping_by_long_fractions_and_raises_it_by_short_ones():
    at = lambda fraction: trial()._replace(fraction=jnp.asarray(fraction))
    fractions = (1.0, 0.5, 0.25, 1 / 8, 1 / 16, 1 / 256)
    found = scales(trust.line_search(0.5), *map(at, fractions), trial(gain=NO))
    factors = np.cumprod([1 / 3, 1, 3, 9, 9, 9, 9])
    np.testing.assert_allclose(found, 0.5 * factors, rtol=1e-5)
    assert not after(trust.line_search(1e-3), trial(gain=NO)).accepted


def test_a_search_begins_by_the_precision_and_stays_above_rounding():
    eps = np.finfo(np.float32).eps
    np.testing.assert_allclose(trust.line_search().init(PARAMS).scale, eps**0.75, rtol=1e-5)
    assert after(trust.line_search(), *[trial()] * 20).scale == eps


@pytest.mark.parametrize("setting", [{"initial": 0.0}, {"halvings": 0}])
def test_a_search_of_nothing_is_refused(setting):
    with pytest.raises(ValueError, match=r"trust\.line_search got .* positive"):
        trust.line_search(**setting)


def test_halvings_of_a_step_raise_damping_by_half_each_and_whole_steps_follow_the_gain():
    at = lambda fraction, gain: trial(gain=gain)._replace(fraction=jnp.asarray(fraction))
    policy = trust.damping(0.5, halvings=10)
    assert policy.searches and not trust.damping(0.5).searches
    found = scales(policy, at(0.25, 1.0), at(1.0, 1.0), at(0.5, NO))
    np.testing.assert_allclose(
        np.divide(found, [0.5, *found[:-1]]), [2.25, 1 / 3, 2], rtol=ROUNDING
    )


# Objectives that change from update to update


def elsewhere(gain, other, **settings):
    """A trial on an objective where the last step had the gain ``other``."""
    return trial(gain, **settings)._replace(elsewhere=lambda: jnp.asarray(other, jnp.float32))


@pytest.mark.parametrize(
    ("gain", "other", "factor"),
    [
        (1.0, np.inf, 1 / 3),  # the same objective
        (1.0, 0.9, 0.9),  # another, on which the last step was good as well
        (1.0, 0.5, 1.0),
        (1.0, -np.inf, 1 / 0.9),
        (0.0, 0.9, 1.5),  # a rejection, which another batch may not confirm
        (NO, 0.9, 2.0),
    ],
)
def test_damping_falls_slowly_and_only_where_other_batches_agree(gain, other, factor):
    state = after(trust.damping(1.0), elsewhere(gain, other))
    np.testing.assert_allclose(state.scale, factor, rtol=ROUNDING)


@pytest.mark.parametrize(("other", "factor"), [(np.inf, 2.0), (0.9, 1 / 0.9), (0.5, 1.0)])
def test_a_radius_grows_only_where_other_batches_agree(other, factor):
    state = after(trust.radius(1.0), elsewhere(1.0, other, boundary=True))
    np.testing.assert_allclose(state.scale, factor, rtol=ROUNDING)


@pytest.mark.parametrize(("other", "factor"), [(np.inf, 1 / 4), (0.95, 1 / 4), (0.5, 1.0)])
def test_a_cubic_weight_falls_only_where_other_batches_agree(other, factor):
    state = after(trust.cubic(1.0), elsewhere(1.0, other))
    np.testing.assert_allclose(state.scale, factor, rtol=ROUNDING)


@pytest.mark.parametrize(("other", "factor"), [(np.inf, 1 / 3), (0.9, 0.9), (0.5, 1.0)])
def test_the_damping_of_a_search_falls_only_where_other_batches_agree(other, factor):
    state = after(trust.line_search(1e-3), elsewhere(1.0, other))
    np.testing.assert_allclose(state.scale, 1e-3 * factor, rtol=ROUNDING)
