"""An ill-conditioned quadratic whose spectrum is known: each eigenmode has a pace of its own."""

import functools

import jax.numpy as jnp
import numpy as np

import secondorder as so
from experiments.figures import eigenmodes
from experiments.problem import Problem

SIZE = 41
CONDITION = 1e4
EIGENVALUES = np.geomspace(1 / CONDITION, 1, SIZE)
SHOWN = range(0, SIZE, 10)  # the modes that are recorded: one for each power of ten
SEED = 0


@functools.cache
def load():
    """Eigenvalues, and a random orthogonal basis, uniformly drawn: the columns are eigenvectors."""
    q, r = np.linalg.qr(np.random.default_rng(SEED).standard_normal((SIZE, SIZE)))
    return {"eigenvalues": EIGENVALUES, "basis": q * np.sign(np.diag(r))}


def init(key, data):
    """One in each mode."""
    del key
    return data["basis"] @ jnp.ones(SIZE)


def objective(batch):
    """``½ xᵀ A x = ½ ‖Λ^½ Qᵀ x‖²``, so that it is a sum of squares as well."""
    root = jnp.sqrt(batch["eigenvalues"])[:, None] * batch["basis"].T
    return so.sum_of_squares(lambda params: root @ params)


def metrics(params, data):
    modes = data["basis"].T @ params
    return {f"mode_{EIGENVALUES[k]:.0e}": modes[k] for k in SHOWN}


PROBLEM = Problem(
    name="quadratic",
    title="A quadratic of condition number 10,000",
    description=(
        f"½ xᵀ A x in {SIZE} variables: eigenvalues from {1 / CONDITION:g} to 1, evenly spread on "
        "the logarithmic scale, in a random orthogonal basis; from a point that has one of every "
        "eigenvector, in float64. The minimum is zero, at zero. A gradient step shrinks each mode "
        "by one minus step times eigenvalue: what is stable for the steepest is slow for the "
        "flattest. Newton's step is the same for all."
    ),
    load=load,
    init=init,
    objective=objective,
    metrics=metrics,
    targets=(1e-2, 1e-4, 1e-8),
    optimum=0.0,
    tuning_steps=500,
    steps={"first-order": 3000, "quasi-newton": 500, "matrix-free": 50, "dense": 20},
    pictures=(eigenmodes(),),
)
