"""Quadratic models given by a matrix or by rows, for the tests of the solvers."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import secondorder as so


class Dense(NamedTuple):
    """``g·d + ½ d·Bd`` with a dense ``B``, known to the solver by its products alone."""

    matrix: Any
    grad: Any

    def model(self) -> so.Quadratic:
        return so.Quadratic(self.grad, so.operators.Function(lambda v: self.matrix @ v, self.grad))


class Rows(NamedTuple):
    """The Gauss-Newton model of ``½‖R (p − at) + r‖²``; with another gradient where given."""

    rows: Any
    residual: Any
    grad: Any = None
    at: Any = None

    def model(self) -> so.Quadratic:
        at = jnp.zeros(self.rows.shape[1], self.rows.dtype) if self.at is None else self.at
        objective = so.sum_of_squares(lambda p: self.rows @ (p - at) + self.residual)
        grad = jax.grad(objective)(at) if self.grad is None else self.grad
        return so.Quadratic(grad, so.ggn(objective, at))


def random_matrix(eigenvalues, seed=0) -> np.ndarray:
    """A symmetric matrix of these eigenvalues, along random axes."""
    n = len(eigenvalues)
    axes, _ = np.linalg.qr(np.random.default_rng(seed).normal(size=(n, n)))
    return axes @ np.diag(eigenvalues) @ axes.T


@functools.cache
def _compiled(solver):
    return jax.jit(lambda problem, state, scale: solver.update(problem.model(), state, scale))


def run(solver, problem, scale=0.0, state=None):
    """One compiled solve: the step, in NumPy, and the solver's next state."""
    problem = jax.tree.map(jnp.asarray, problem)
    like = jax.eval_shape(lambda p: p.model().grad, problem)
    state = solver.init(like) if state is None else state
    step, state = _compiled(solver)(problem, state, jnp.asarray(scale, so.tree.dtype(like)))
    return jax.tree.map(np.asarray, step), state
