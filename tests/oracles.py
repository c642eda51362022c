"""Brute force: the definitions, written out on dense arrays, sharing no line with the library.

Slow on purpose. Everything works on the vector of all parameters and the vector of all outputs.
Each is one program, since most of the time would else go into compiling each of its operations.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree


def flat(tree: Any) -> np.ndarray:
    """The entries of a tree, leaf after leaf."""
    return np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(tree)] or [np.zeros(0)])


def on_vectors(fn: Callable, point: Any) -> tuple[Callable, jax.Array]:
    """``fn`` from vector to vector (a scalar stays one), and the point as a vector."""
    vector, unravel = ravel_pytree(point)

    def inner(x):
        out = fn(unravel(x))
        return out if getattr(out, "shape", None) == () else ravel_pytree(out)[0]

    return inner, vector


def hessian(fn: Callable, params: Any) -> jax.Array:
    """All second derivatives, ``(n, n)``."""
    inner, x = on_vectors(fn, params)
    return jax.jit(jax.hessian(inner))(x)


def jacobian(fn: Callable, params: Any) -> jax.Array:
    """All first derivatives, ``(m, n)``."""
    inner, x = on_vectors(lambda p: {"outputs": fn(p)}, params)
    return jax.jit(jax.jacobian(inner))(x)


def loss_of(problem: Any) -> Callable:
    """The loss of a problem's outputs, as a sum over its examples."""
    return lambda z: problem.weight * jnp.sum(terms(problem, z))


def terms(problem: Any, outputs: Any) -> jax.Array:
    """The losses of the single examples, ``(N,)``."""
    return jax.vmap(lambda n: problem.term(outputs, n))(jnp.arange(problem.count))


def gradient(problem: Any) -> jax.Array:
    """The first derivatives of the loss after the model, ``(n,)``."""
    inner, x = on_vectors(lambda p: loss_of(problem)(problem.objective.model(p)), problem.params)
    return jax.jit(jax.grad(inner))(x)


def ggn(problem: Any) -> jax.Array:
    """``Jᵀ M J`` with ``M`` all second derivatives of the loss at the outputs."""
    model = problem.objective.model

    @jax.jit
    def product(params):
        j = jacobian(model, params)
        m = hessian(loss_of(problem), model(params))
        return j.T @ m @ j

    return product(problem.params)


def empirical_fisher(problem: Any) -> jax.Array:
    """``w Σₙ gₙ gₙᵀ`` from the gradients ``gₙ`` of the single examples' losses."""
    gradients = jacobian(lambda p: terms(problem, problem.objective.model(p)), problem.params)
    return problem.weight * gradients.T @ gradients


def output_fisher(problem: Any) -> np.ndarray:
    """``w Σₙ E[s sᵀ]`` over all outputs: scores ``s`` of targets drawn from the model, expected."""
    z = flat(jax.jit(problem.objective.model)(problem.params))
    if problem.family == "categorical":  # every class, each with its probability
        logits = np.asarray(z, np.float64).reshape(problem.count, -1)
        classes = logits.shape[1]
        total = np.zeros((z.size, z.size))
        for n in range(problem.count):
            p = np.exp(logits[n]) / np.sum(np.exp(logits[n]))
            for c in range(classes):
                s = np.zeros((problem.count, classes))
                s[n] = p - np.eye(classes)[c]  # the gradient of −log p[c]
                total += p[c] * np.outer(s, s)
        return problem.weight * total
    second = [expected_square_of_score(problem.family, zi) for zi in np.asarray(z, np.float64)]
    return problem.weight * np.diag(second)  # one output tells nothing about another


def expected_square_of_score(family: str, z: float) -> float:
    """``E[s²]`` for one output, as a sum over every target it can have."""
    match family:
        case "bernoulli":
            p = 1 / (1 + np.exp(-z))
            return p * (p - 1) ** 2 + (1 - p) * p**2
        case "poisson":
            t = np.arange(200)
            log_factorial = np.cumsum(np.log(np.maximum(t, 1)))
            return np.exp(t * z - np.exp(z) - log_factorial) @ (np.exp(z) - t) ** 2
        case "gaussian":
            nodes, weights = np.polynomial.hermite_e.hermegauss(9)
            return weights @ nodes**2 / weights.sum()
    raise AssertionError(family)


def fisher(problem: Any) -> np.ndarray:
    """``Jᵀ (w Σₙ E[s sᵀ]) J``."""
    j = np.asarray(jax.jit(lambda p: jacobian(problem.objective.model, p))(problem.params))
    return j.T @ output_fisher(problem) @ j


def finite_differences(fn: Callable, point: Any, step: float = 1e-5) -> np.ndarray:
    """All first derivatives ``(m, n)`` by central differences; wants float64."""
    inner, x = on_vectors(lambda p: {"outputs": fn(p)}, point)
    inner, x = jax.jit(inner), flat(point)
    columns = [
        (np.asarray(inner(x + step * e)) - np.asarray(inner(x - step * e))) / (2 * step)
        for e in np.eye(x.size)
    ]
    return np.stack(columns, axis=1)


def matrix(product: Callable, like: Any) -> jax.Array:
    """The matrix of a linear map of ``like``-shaped trees, from its values on the unit vectors."""
    x, unravel = ravel_pytree(like)
    column = lambda e: ravel_pytree(product(unravel(e)))[0]
    return jax.jit(jax.vmap(column, out_axes=1))(np.eye(x.size, dtype=x.dtype))


def relative_error(found: Any, expected: Any) -> float:
    """``‖found − expected‖ / ‖expected‖`` (Frobenius), in float64."""
    found, expected = np.asarray(found, np.float64), np.asarray(expected, np.float64)
    assert found.shape == expected.shape, (found.shape, expected.shape)
    return float(np.linalg.norm(found - expected) / max(np.linalg.norm(expected), 1e-300))
