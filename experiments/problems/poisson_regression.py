"""Poisson regression: convex, with a curvature that grows as fast as the rates do."""

import functools

import jax.numpy as jnp
import numpy as np

import secondorder as so
from experiments.problem import Problem

COUNT, FEATURES = 500, 12
SEED = 0
CORRELATION = 0.8  # of neighbouring features


@functools.cache
def load():
    """Features of an autoregressive sequence; counts drawn with rates ``exp(x · w + b)``."""
    generator = np.random.default_rng(SEED)
    noise = generator.standard_normal((COUNT, FEATURES))
    inputs = noise.copy()
    for k in range(1, FEATURES):
        fresh = np.sqrt(1 - CORRELATION**2) * noise[:, k]
        inputs[:, k] = CORRELATION * inputs[:, k - 1] + fresh
    weights = generator.standard_normal(FEATURES) / np.sqrt(FEATURES)
    counts = generator.poisson(np.exp(inputs @ weights + 0.5))
    return {"inputs": inputs, "counts": counts.astype(np.float64)}


def init(key, data):
    del key
    return {"weights": jnp.zeros(data["inputs"].shape[1]), "intercept": jnp.zeros(())}


def log_rate(params, x):
    return x @ params["weights"] + params["intercept"]


def objective(batch):
    return so.per_example(so.poisson(batch["counts"]), log_rate, batch["inputs"])


PROBLEM = Problem(
    name="poisson-regression",
    title="Poisson regression on generated counts",
    description=(
        f"{COUNT} counts drawn (with a fixed seed) from a Poisson law whose log-rate is linear in "
        f"{FEATURES} features, neighbours of which correlate by {CORRELATION:g}; the negative "
        "log-likelihood without its constant, no penalty, from zeros, in float64. Convex, but the "
        "curvature is the rate itself and grows by the exponential: the second derivative has no "
        "bound, and a fixed step that is safe at the optimum may not be on the way."
    ),
    load=load,
    init=init,
    objective=objective,
    targets=(1e-2, 1e-4, 1e-8),
    step_unit=0.1,
    tuning_steps=500,
    steps={"first-order": 2000, "quasi-newton": 200, "matrix-free": 50, "dense": 20},
)
