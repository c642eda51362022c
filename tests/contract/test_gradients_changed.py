"""What else of Optax stands in a chain: a method's gain ratio and scale stay those of its steps."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from contract.problems import batch, logistic, logistic_start
from contract.table import METHODS, names_where, sampled_natural_gradient
from tolerances import assert_close

import secondorder as so
from secondorder.trust._base import Last
from secondorder.trust._closed_loop import ACCEPT

PARTS = {
    "clip_by_global_norm": lambda: optax.clip_by_global_norm(0.05),
    "clip": lambda: optax.clip(0.01),
    "add_decayed_weights": lambda: optax.add_decayed_weights(0.1),
    "ema": lambda: optax.ema(0.9),
    "add_noise": lambda: optax.add_noise(0.01, 0.5, 0),
    "scale": lambda: optax.scale(0.3),
}
STEPS = 6  # fewer than to the minimum, where a gain is rounding


def tries_its_steps(method) -> bool:
    """Whether the method evaluates its steps and models the objective."""
    states = so.state.find_states(jax.eval_shape(method.make().init, logistic_start()))
    closed = bool(states) and isinstance(states[-1].trust.last, Last)
    # The Fisher matrix of a few sampled labels is no model of the objective.
    return closed and method.factory is not sampled_natural_gradient


def gains(tx):
    """The gain ratios of a run."""

    def step(carry, _):
        params, state = carry
        value_fn = logistic(batch())
        value, grad = jax.value_and_grad(value_fn)(params)
        updates, state = tx.update(grad, state, params, value=value, grad=grad, value_fn=value_fn)
        return (optax.apply_updates(params, updates), state), so.diagnostics(state)["gain"]

    start = logistic_start()
    return jax.jit(lambda: jax.lax.scan(step, (start, tx.init(start)), length=STEPS)[1])()


@pytest.mark.quick(3)
@pytest.mark.parametrize("before", [True, False], ids=["before", "after"])
@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("name", names_where(tries_its_steps))
def test_the_gain_is_that_of_the_step_whatever_stands_beside_the_method(name, part, before):
    method, other = METHODS[name].make(), PARTS[part]()
    found = np.asarray(gains(optax.chain(*[other, method][:: 1 if before else -1])))
    assert np.all(found < np.inf)
    # Without the rejected steps, which were too long for any model. Near a minimum a single gain
    # may be far off; of nonsense all are.
    accepted = found[found > ACCEPT]
    assert len(accepted) > 1 and 0.2 < np.median(accepted) < 3


def test_a_clipped_step_is_judged_by_the_function_whose_gradient_the_model_has(x64):
    """By hand: ρ = (f(p + d) − f(p) + (g̃ − g)·d) / (g̃·d + ½ d·Bd)."""
    f = lambda p: jnp.sum(jnp.cosh(p)) + 0.3 * jnp.sum(p) ** 2
    p = jnp.array([1.0, -0.5, 2.0])
    g = jax.grad(f)(p)
    for change in (0.1 * g, g + 0.3 * p, jnp.array([0.1, 0.0, -0.2])):
        tx = so.newton_cg(trust=10.0)
        updates, state = tx.update(change, tx.init(p), p, value=f(p), grad=g, value_fn=f)
        d = so.Quadratic(change, so.hessian(f, p))
        actual = f(p + updates) - f(p) + (change - g) @ updates
        told = so.diagnostics(state)
        assert_close(told["predicted"], d(updates), 100)
        np.testing.assert_allclose(told["gain"], actual / d(updates), rtol=1e-8)
