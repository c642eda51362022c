"""``vmap`` over data sets and seeds comes to an end on a machine of two cores."""

import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import secondorder as so

LIMIT = 300  # seconds; none takes more than 20 by itself
PLACES = jnp.linspace(0.0, 10.0, 100)
TRUE = jnp.array([1, 2, 0.5, 2, 4, 0.6, 1.5, 6, 0.4, 1, 8, 0.5])


def peaks(p, x):
    height, place, width = p[0::3, None], p[1::3, None], p[2::3, None]
    return jnp.sum(height * jnp.exp(-((x - place) ** 2) / (2 * width**2)), 0)


def data_sets():
    return peaks(TRUE, PLACES) + 0.01 * jax.random.normal(jax.random.key(0), (40, 100))


def trained(tx, objective, params, count=3):
    def step(carry, _):
        params, state = carry
        value, grad = jax.value_and_grad(objective)(params)
        known = {"value": value, "grad": grad, "value_fn": objective}
        updates, state = tx.update(grad, state, params, **known)
        return (optax.apply_updates(params, updates), state), None

    (params, _), _ = jax.lax.scan(step, (params, tx.init(params)), None, length=count)
    return params


def fits():
    fit = lambda y: so.curve_fit(peaks, PLACES, y, 1.05 * TRUE).params
    return jax.jit(jax.vmap(fit))(data_sets())


def solves(name):
    def solve(y):
        residual = lambda p: peaks(p, PLACES) - y
        return so.least_squares(residual, 1.05 * TRUE, getattr(so, name)(), max_steps=5).params

    # Two solves that know nothing of one another may run at once.
    return jax.jit(jax.vmap(lambda y: solve(y) + solve(y + 0.01)))(data_sets())


def steps(name):
    def train(y):
        objective = so.sum_of_squares(lambda p: peaks(p, PLACES) - y)
        return trained(getattr(so, name)(), objective, 1.05 * TRUE)

    return jax.jit(jax.vmap(train))(data_sets())


def seeds(name, width, *settings):
    x = jax.random.normal(jax.random.key(0), (64, 32))
    model = lambda p: jnp.tanh(x @ p["a"] + p["c"]) @ p["b"]
    objective = so.compose(so.squared_error(jnp.sin(x[:, :4])), model)
    known = {"example": objective} if name in ("kfac", "ekfac") else {}

    def train(key):
        draw = lambda *shape: jax.random.normal(key, shape) / 6
        start = {"a": draw(32, width), "b": draw(width, 4), "c": jnp.zeros(width)}
        return trained(getattr(so, name)(*settings, **known), objective, start)

    return jax.jit(jax.vmap(train))(jax.random.split(jax.random.key(1), 4))


ROWS = ("gauss_newton", "levenberg_marquardt", "dogleg", "hybrid_newton", "natural_gradient")
DENSE = ("newton", "cubic_newton", "trust_region_newton", "bfgs", "ssbroyden", "sr1")
REST = ("lbfgs", "newton_cg", "hessian_free", "layerwise_gauss_newton", "gradient_descent")
CALLS = {
    "seeds, soap": lambda: seeds("soap", 32, 0.03),
    "fits": fits,
    "seeds, shampoo": lambda: seeds("shampoo", 64, 0.03),
    "seeds, kfac": lambda: seeds("kfac", 64),
    "seeds, ekfac": lambda: seeds("ekfac", 32),
    "seeds, natural_gradient": lambda: seeds("natural_gradient", 16),
    "seeds, layerwise_gauss_newton": lambda: seeds("layerwise_gauss_newton", 32),
    **{f"solves, {name}": lambda name=name: solves(name) for name in ROWS},
    **{f"steps, {name}": lambda name=name: steps(name) for name in ROWS + DENSE + REST},
}


@pytest.mark.quick(1)
@pytest.mark.parametrize("name", CALLS)
def test_many_lanes_on_two_threads_come_to_an_end(name):
    known = {key: value for key, value in os.environ.items() if key != "XLA_FLAGS"}
    folder = str(Path(so.__file__).parents[1])
    env = known | {"NPROC": "2", "PYTHONPATH": folder, "JAX_PLATFORMS": "cpu"}
    subprocess.run([sys.executable, __file__, name], env=env, check=True, timeout=LIMIT)


if __name__ == "__main__":
    for leaf in jax.tree.leaves(CALLS[sys.argv[1]]()):
        assert np.all(np.isfinite(leaf))
