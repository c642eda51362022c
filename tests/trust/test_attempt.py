"""Going back along a solver's iterates: which iterate is taken, and what was looked at for it."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import secondorder as so
from secondorder import tree
from secondorder.objectives._at_point import AtPoint, Face, at_point
from secondorder.objectives._base import Plain
from secondorder.step import Iterates, Path, make_step
from secondorder.trust import Attempt

PARAMS = jnp.array([10.0])


def attempt(step, value_fn, params, quadratic=None, value=None, radius=jnp.inf):
    model = quadratic or so.Quadratic(jnp.ones_like(params), so.operators.Identity())
    here, edge = at_point(value_fn, "update"), jnp.asarray(radius)
    return Attempt(step, model, params, here, value, tree.norm, edge)


def tried(values, final, length=4, count=None):
    """The step after iterates of which the k-th, a step of k, has the k-th of the values."""
    count = len(values) if count is None else count
    ring = np.zeros((length + 1, 1), np.float32)
    for k in range(len(values)):
        ring[k % (length + 1)] = k + 1
    table = jnp.array([0.0, *values, final], jnp.float32)
    value_fn = lambda p: table[jnp.round(p[0] - PARAMS[0]).astype(int)]
    iterates = Iterates(jnp.asarray(ring), -10 * jnp.asarray(ring[:, 0]), jnp.asarray(count), None)
    whole = jnp.array([len(values) + 1.0])
    step = make_step(whole, -10.0 * whole[0], candidates=iterates)
    return jax.jit(lambda: attempt(step, value_fn, PARAMS).choose())()


@pytest.mark.parametrize(
    ("values", "final", "taken"),
    [
        ([9.0, 8.0, 7.0], 6.0, 4),  # ever lower: the step itself
        ([9.0, 5.0, 7.0], 8.0, 2),  # back while it falls
        ([1.0, 9.0, 7.0], 8.0, 3),  # and no further, though there is a lower one
        ([3.0, 4.0, 5.0], 6.0, 1),  # to the first
        ([9.0, 5.0, jnp.nan], jnp.inf, 2),  # through what is not finite
        ([9.0, 2.0, 3.0, 4.0, 5.0, 6.0], 7.0, 3),  # as far as the ring reaches
        ([], 7.0, 1),  # no iterate was kept
        ([9.0, 6.9999995, 7.0, 7.0], 7.0, 5),  # equal ones are left, and rounding is no descent
        ([9.0, 6.0, 7.0, 7.0], 7.0, 2),  # but what lies before them is found
    ],
)
def test_the_step_goes_back_until_the_value_would_rise(values, final, taken):
    step = tried(values, final)
    assert step.direction[0] == taken
    assert step.predicted == -10 * taken and step.length == taken
    back, kept = len(values) + 1 - taken, min(len(values), 4)
    assert step.report.trial_evaluations <= kept + 1 and (
        back == 0 or step.report.trial_evaluations >= min(back + 2, kept + 1)
    )


# What a method makes of it


def test_a_step_beyond_the_valley_is_taken_back_and_the_warm_start_is_not():
    """Where it is flat, which CG sees last, the value rises faster than its quadratic."""
    bend = jnp.array([1.0, 100.0])
    rise = lambda z: jnp.where(bend > 30, 0.5 * z**2, jnp.cosh(z)) + 3.5 * z
    f = so.compose(lambda z: jnp.sum(rise(z)), lambda p: p * jnp.sqrt(bend))
    start = jnp.zeros(2)
    grad = jax.grad(f)(start)

    def update(iterates):
        cg = so.solvers.cg(200, iterates=iterates, warm_start=0.9)
        tx = so.scale_by_curvature(so.exact(so.ggn), cg, so.trust.damping(1e-3))
        return jax.jit(lambda: tx.update(grad, tx.init(start), start, value_fn=f))()

    (_, before), (taken, after) = update(0), update(10)
    assert so.diagnostics(after)["trial_evaluations"] >= 2
    assert f(taken) < min(f(start), f(start + before.solver.warm))
    np.testing.assert_array_equal(after.solver.warm, before.solver.warm)
    told = so.diagnostics(after)
    predicted = so.Quadratic(grad, so.ggn(f, start))(taken)
    np.testing.assert_allclose(told["predicted"], predicted, rtol=1e-4)
    np.testing.assert_allclose(told["gain"], (f(taken) - f(start)) / predicted, rtol=1e-4)


def test_an_open_loop_policy_looks_at_nothing():
    f = so.sum_of_squares(lambda p: jnp.arctan(p))
    tx = so.scale_by_curvature(so.exact(so.ggn), so.solvers.cg(iterates=4), so.trust.fixed(1e-3))
    p = jnp.array([4.0, 1.0])
    _, state = tx.update(jax.grad(f)(p), tx.init(p), p, value_fn=f)
    assert so.diagnostics(state)["trial_evaluations"] == 0


@pytest.mark.slow
def test_the_values_looked_at_are_part_of_what_a_solve_has_paid():
    f = so.sum_of_squares(lambda p: jnp.array([10 * (p[1] - p[0] ** 2), 1 - p[0]]))
    cg = lambda iterates: so.solvers.cg(iterates=iterates)
    method = lambda k: so.scale_by_curvature(so.exact(so.ggn), cg(k), so.trust.damping())
    plain = so.minimize(f, jnp.array([-1.2, 1.0]), method(0))
    more = so.minimize(f, jnp.array([-1.2, 1.0]), method(4))
    assert plain.evaluations.values <= plain.steps + 1  # the last trial is not taken
    assert more.evaluations.values >= 2 * (more.steps - 1)


# ------------------------------------------------------------------------- fractions of a path


def shortened(value_fn, step, halvings=4, value=None):
    start = jnp.zeros(1)
    model = so.Quadratic(jnp.ones(1), so.operators.Identity())
    value = value_fn(start) if value is None else value
    return jax.jit(lambda: attempt(step, value_fn, start, model, value).choose(halvings))()


@pytest.mark.parametrize(
    ("lowest", "taken"), [(8.0, 1.0), (4.5, 0.5), (2.0, 0.25), (0.6, 0.0625), (1e-3, 0.0625)]
)
def test_the_first_fraction_that_descends_further_than_the_next_is_taken(lowest, taken):
    step = make_step(jnp.array([8.0]), -2.0)
    found = shortened(lambda p: jnp.sum((p - lowest) ** 2), step)
    assert found.direction[0] == 8 * taken and found.length == 8 * taken
    assert found.report.fraction == taken
    np.testing.assert_allclose(found.predicted, 8 * taken + taken**2 * (-2.0 - 8.0))


def test_a_fraction_that_does_not_descend_is_passed_over():
    values = {8.0: 5.0, 4.0: 6.0, 2.0: 0.5, 1.0: 0.7}
    table = jnp.array([values.get(float(k), 1.0) for k in range(9)])
    found = shortened(lambda p: table[jnp.round(p[0]).astype(int)], make_step(jnp.array([8.0]), -1))
    assert found.direction[0] == 2 and found.report.trial_evaluations == 4


def test_a_decrease_below_the_rounding_of_the_value_keeps_the_step_whole():
    step = make_step(jnp.array([8.0]), -1e-3)
    found = shortened(lambda p: 1e9 + jnp.sum(p), step)
    assert found.direction[0] == 8 and found.report.trial_evaluations == 1


def test_a_fraction_is_of_the_path_and_not_of_the_straight_step():
    step = make_step(jnp.array([8.0]), -2.0, candidates=Path((jnp.array([4.0]), jnp.array([6.0]))))
    at = lambda t: 8 * t + 4 * t**2 / 2 + 6 * t**3 / 6
    found = shortened(lambda p: jnp.sum((p - at(0.5)) ** 2), step)
    np.testing.assert_allclose(found.direction[0], at(0.5), rtol=1e-6)
    whole = jax.jit(lambda: attempt(step, jnp.sum, jnp.zeros(1)).choose())()
    np.testing.assert_allclose(whole.direction[0], at(1.0), rtol=1e-6)


# ------------------------------------------------------------------------------------- in a box


def test_a_step_that_bounds_cut_has_its_own_length_and_prediction():
    grad, b = jnp.array([-4.0, -2.0, -1.0]), jnp.array([1.0, 2.0, 4.0])
    quadratic = so.Quadratic(grad, so.operators.Diagonal(b))
    free = jnp.array([True, True, False])
    face = Face(jnp.full(3, -1.0), jnp.full(3, 1.0), jnp.zeros(3), grad, free)
    f = AtPoint(Plain(lambda p: p @ grad), True, face)
    step = make_step(jnp.array([3.0, 0.5, 0.25]), -1.0)
    trial = attempt(step, f, jnp.zeros(3), quadratic, radius=3.05)
    assert trial.trial(step).boundary
    cut = trial.choose()
    taken = np.array([1.0, 0.5, 0.0])
    np.testing.assert_array_equal(cut.direction, taken)
    np.testing.assert_allclose(cut.predicted, grad @ taken + 0.5 * taken @ (b * taken), rtol=1e-6)
    np.testing.assert_allclose(cut.length, np.linalg.norm(taken), rtol=1e-6)
    assert not trial.trial(cut).boundary


def test_a_step_inside_the_bounds_stays_what_the_solver_gave():
    quadratic = so.Quadratic(jnp.ones(2), so.operators.Diagonal(jnp.ones(2)))
    whole, far = jnp.array([True, True]), jnp.full(2, 9.0)
    face = Face(-far, far, PARAMS[:1].repeat(2) / 2, jnp.ones(2), whole)
    f = AtPoint(Plain(jnp.sum), True, face)
    step = make_step(jnp.array([-1e-7, 2e-7]), -3.0, length=7.0)
    trial = attempt(step, f, face.params, quadratic, radius=7.0)
    cut = trial.choose()
    np.testing.assert_array_equal(cut.direction, step.direction)
    assert cut.predicted == -3.0 and cut.length == 7.0 and trial.trial(cut).boundary


def test_a_region_is_not_shortened_by_the_length_that_bounds_cut_away(x64):
    # Along the first parameter a step goes far beyond its bound; the second one is what is left.
    f = lambda p: 1e-9 * (p[0] - 1e8) ** 2 + 1e4 * jnp.sqrt(1 + p[1] ** 2)
    upper = jnp.array([1.0, jnp.inf])
    for method in (so.trust_region_newton(), so.trust_region_newton(trust=1e3), so.newton_cg()):
        found = so.minimize(f, jnp.array([0.0, 3.0]), method, bounds=(-jnp.inf, upper))
        assert found.success and found.steps <= 10
        assert found.params[0] == 1 and abs(found.params[1]) < 1e-6


def fitted(x, y):
    """A linear fit with more parameters than examples: every batch can be fitted to the last."""
    return so.compose(so.squared_error(y), lambda p: x @ p)


NOISY = {
    "damping": lambda: so.hessian_free(trust=so.trust.damping(0.1)),
    "radius": lambda: so.levenberg_marquardt(trust=so.trust.radius(1.0), acceleration=False),
    "line_search": lambda: so.natural_gradient(trust=so.trust.line_search(0.1)),
}


@pytest.mark.parametrize("name", list(NOISY))
def test_a_scalar_holds_on_batches_that_change_and_moves_as_ever_on_one(name, x64):
    rng = np.random.default_rng(0)
    x, y = jnp.asarray(rng.normal(size=(60, 4, 8))), jnp.asarray(rng.normal(size=(60, 4)))
    tx, start = NOISY[name](), jnp.zeros(8)

    @jax.jit
    def scales(x, y):
        def step(carry, batch):
            params, state = carry
            f = fitted(*batch)
            value, grads = jax.value_and_grad(f)(params)
            updates, state = tx.update(grads, state, params, value=value, value_fn=f)
            seen = so.diagnostics(state)["scale"], so.diagnostics(state)["gain"]
            return (optax.apply_updates(params, updates), state), seen

        return jax.lax.scan(step, (start, tx.init(start)), (x, y))[1]

    changing, gains = scales(x, y)
    assert np.median(gains) > 0.9  # of the batch that a step was fitted to
    one, _ = scales(jnp.repeat(x[:1], 60, 0), jnp.repeat(y[:1], 60, 0))
    changing, one = changing / changing[0], one / one[0]
    if name == "radius":
        assert np.max(changing) < 10
    else:
        assert np.min(changing) > 0.1 > 2e-3 > np.min(one)
