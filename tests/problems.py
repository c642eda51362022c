"""Small problems with known answers, for every test that needs an objective and somewhere to start.

Their data are float32 numbers in any dtype, so that one problem in float32 and in float64 differs
in the arithmetic alone. ``term`` writes the loss of one example out, without the library.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import secondorder as so


class Problem(NamedTuple):
    """An objective, a start, and what is known about them.

    Attributes:
      objective: the ``value_fn``.
      params: where to start, or to differentiate.
      batched: the same objective in its ``per_example`` form, where its examples are independent.
      term: ``(outputs, n)`` ↦ the loss of example n, without the factor in front of the sum; n may
        be traced.
      count: the number of examples.
      weight: the factor in front of the sum over them.
      family: what the targets are drawn from, where the loss is a likelihood.
      minimum: the parameters where the objective is smallest, where they are known.
    """

    objective: Callable
    params: Any
    batched: so.Objective | None = None
    term: Callable | None = None
    count: int = 1
    weight: float = 1.0
    family: str | None = None
    minimum: Any = None


def draw(seed: int, *shape: int, dtype: Any = jnp.float32, scale: float = 1.0) -> jax.Array:
    """Normal numbers, the same in every dtype up to its rounding."""
    return array(scale * np.random.default_rng(seed).normal(size=shape), dtype)


def array(x: Any, dtype: Any) -> jax.Array:
    """Plain numbers as an array; rounded to float32 first, whatever the dtype."""
    return jnp.asarray(np.asarray(x, np.float32), dtype)


# ------------------------------------------------------------------ regressions with a likelihood


def logistic(dtype: Any = jnp.float32) -> Problem:
    """Two-class logistic regression, convex: outputs ``(N,)``, a 0-d leaf among the parameters."""
    count = 6
    x = draw(0, count, 3, dtype=dtype)
    labels = array([0, 1, 1, 0, 1, 0], dtype)
    loss = so.sigmoid_cross_entropy(labels)
    model = lambda p, example: example @ p["w"] + p["b"]
    return Problem(
        objective=so.compose(loss, lambda p: x @ p["w"] + p["b"]),
        batched=so.per_example(loss, model, x),
        params={"w": draw(1, 3, dtype=dtype, scale=0.5), "b": array(0.2, dtype)},
        term=lambda z, n: jnp.log(1 + jnp.exp(z[n])) - labels[n] * z[n],
        count=count,
        weight=1 / count,
        family="bernoulli",
    )


def poisson(dtype: Any = jnp.float32) -> Problem:
    """Counts with two log-rates for each example: outputs ``(N, 2)``; parameters: a bare array."""
    count = 5
    x = draw(2, count, 2, dtype=dtype)
    counts = array(np.random.default_rng(3).poisson(2.0, (count, 2)), dtype)
    loss = so.poisson(counts)
    return Problem(
        objective=so.compose(loss, lambda p: jnp.tanh(x @ p)),
        batched=so.per_example(loss, lambda p, example: jnp.tanh(example @ p), x),
        params=draw(4, 2, 2, dtype=dtype, scale=0.5),
        term=lambda z, n: jnp.sum(jnp.exp(z[n]) - counts[n] * z[n]),
        count=count,
        weight=1 / count,
        family="poisson",
    )


def _mlp(params, x):
    hidden = jnp.tanh(x @ params["hidden"]["kernel"] + params["hidden"]["bias"])
    return hidden @ params["out"]["kernel"] + params["out"]["bias"]


def softmax_mlp(dtype: Any = jnp.float32, labels: str = "integer") -> Problem:
    """A network with one hidden layer and nested parameters; labels: integer, one-hot or soft."""
    count, classes = 6, 3
    x = draw(5, count, 2, dtype=dtype)
    integers = [0, 2, 1, 1, 0, 2]
    rows = np.eye(classes)[integers]
    if labels == "soft":
        rows = 0.75 * rows + 0.25 * np.random.default_rng(6).random((count, classes))
    rows = array(rows, dtype)
    loss = so.softmax_cross_entropy(jnp.array(integers) if labels == "integer" else rows)
    return Problem(
        objective=so.compose(loss, lambda p: _mlp(p, x)),
        batched=so.per_example(loss, _mlp, x),
        params={
            "hidden": {"kernel": draw(7, 2, 3, dtype=dtype), "bias": draw(8, 3, dtype=dtype)},
            "out": {
                "kernel": draw(9, 3, classes, dtype=dtype),
                "bias": array(np.zeros(classes), dtype),
            },
        },
        term=lambda z, n: -jnp.sum(rows[n] * jnp.log(jnp.exp(z[n]) / jnp.sum(jnp.exp(z[n])))),
        count=count,
        weight=1 / count,
        family=None if labels == "soft" else "categorical",
    )


def softmax_one_hot(dtype: Any = jnp.float32) -> Problem:
    """:func:`softmax_mlp` with one-hot labels."""
    return softmax_mlp(dtype, "one-hot")


def softmax_soft(dtype: Any = jnp.float32) -> Problem:
    """:func:`softmax_mlp` with labels that do not sum to one."""
    return softmax_mlp(dtype, "soft")


def sequences(dtype: Any = jnp.float32) -> Problem:
    """A token model: logits ``(B, T, C)``, each token an example; parameters in nested tuples."""
    batch, length, classes = 2, 3, 4
    x = draw(10, batch, length, 2, dtype=dtype)
    labels = jnp.array([[0, 3, 1], [2, 2, 0]])
    loss = so.softmax_cross_entropy(labels)

    def model(p, x):
        (embed, (shift,)) = p
        return jnp.cumsum(jnp.tanh(x @ embed), axis=-2) + shift

    def term(z, n):
        token = divmod(n, length)
        return -jnp.log(jnp.exp(z[token][labels[token]]) / jnp.sum(jnp.exp(z[token])))

    return Problem(
        objective=so.compose(loss, lambda p: model(p, x)),
        batched=so.per_example(loss, model, x),
        params=(draw(11, 2, classes, dtype=dtype), (draw(12, classes, dtype=dtype, scale=0.3),)),
        term=term,
        count=batch * length,
        weight=1 / (batch * length),
        family="categorical",
    )


def two_heads(dtype: Any = jnp.float32) -> Problem:
    """Squared error of a tree of outputs, ``None`` among the parameters and among the outputs."""
    count = 4
    x = draw(13, count, 3, dtype=dtype)
    targets = {"mean": draw(14, count, 2, dtype=dtype), "scale": draw(15, count, dtype=dtype)}
    loss = so.squared_error({**targets, "unused": None})

    def model(p, x):
        body = jnp.tanh(x @ p["body"])
        return {"mean": body, "scale": body[..., 0] * p["gain"], "unused": None}

    def term(z, n):
        return 0.5 * sum(jnp.sum((z[k][n] - targets[k][n]) ** 2) for k in targets)

    return Problem(
        objective=so.compose(loss, lambda p: model(p, x)),
        batched=so.per_example(loss, model, x),
        params={"body": draw(16, 3, 2, dtype=dtype), "gain": array(1.5, dtype), "absent": None},
        term=term,
        count=count,
        weight=1 / count,
        family="gaussian",
    )


def scalar_output(dtype: Any = jnp.float32) -> Problem:
    """One example whose output is a number, not an array."""
    return Problem(
        objective=so.compose(so.squared_error(array(0.5, dtype)), lambda p: jnp.sin(p[0]) * p[1]),
        params=array([0.4, -1.2], dtype),
        term=lambda z, n: 0.5 * (z - 0.5) ** 2,
        family="gaussian",
    )


# ------------------------------------------------------------------------------ sums over residuals


def exponential_fit(dtype: Any = jnp.float32) -> Problem:
    """Nonlinear least squares: three parameters of a decay, eight residuals."""
    t = np.linspace(0, 2, 8, dtype=np.float32)
    t, y = array(t, dtype), jnp.asarray(2 * np.exp(-1.5 * t.astype(np.float64)) + 0.3, dtype)
    model = lambda p, t: p["scale"] * jnp.exp(-p["rate"] * t) + p["offset"]
    residual = lambda p, example: model(p, example[0]) - example[1]
    return Problem(
        objective=so.sum_of_squares(lambda p: model(p, t) - y),
        batched=so.per_example(so.losses.half_sum_of_squares(), residual, (t, y)),
        params={k: array(v, dtype) for k, v in (("scale", 1.0), ("rate", 1.0), ("offset", 0.0))},
        term=lambda z, n: 0.5 * z[n] ** 2,
        count=8,
        family="gaussian",
        minimum={k: array(v, dtype) for k, v in (("scale", 2.0), ("rate", 1.5), ("offset", 0.3))},
    )


def residual_tree(dtype: Any = jnp.float32) -> Problem:
    """Least squares whose residuals are a tree of arrays that share no axis: no examples."""
    a = draw(17, 4, 3, dtype=dtype)

    def residual(p):
        return {"fit": jnp.sin(a @ p["x"]) - 0.3, "prior": (p["x"] * p["s"], p["s"] - 1)}

    def term(z, n):
        return 0.5 * sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(z))

    return Problem(
        objective=so.sum_of_squares(residual),
        params={"x": draw(18, 3, dtype=dtype), "s": array(0.7, dtype)},
        term=term,
    )


def robust(loss: so.losses.Loss, rho: Callable, scale: float, dtype: Any = jnp.float32) -> Problem:
    """A line through points with an outlier, under ``½ c² Σ ρ((r/c)²)``."""
    x = draw(19, 6, 2, dtype=dtype)
    y = array([0.1, 0.4, -0.2, 0.3, 9.0, 0.1], dtype)
    return Problem(
        objective=so.compose(loss, lambda p: x @ p - y),
        batched=so.per_example(loss, lambda p, xy: xy[0] @ p - xy[1], (x, y)),
        params=array([0.3, -0.4], dtype),
        term=lambda z, n: 0.5 * scale**2 * rho((z[n] / scale) ** 2),
        count=6,
    )


def penalised(dtype: Any = jnp.float32) -> Problem:
    """:func:`logistic` with an L2 penalty, as a total of losses: outputs ``(logits, weights)``."""
    x = draw(0, 6, 3, dtype=dtype)
    labels = array([0, 1, 1, 0, 1, 0], dtype)
    loss = so.losses.total(so.sigmoid_cross_entropy(labels), so.losses.half_sum_of_squares())

    def term(z, n):
        logits, scaled = z
        fit = jnp.mean(jnp.log(1 + jnp.exp(logits)) - labels * logits)
        return fit + 0.5 * (scaled["w"] @ scaled["w"] + scaled["b"] ** 2)

    return Problem(
        objective=so.compose(
            loss, lambda p: (x @ p["w"] + p["b"], jax.tree.map(lambda leaf: 0.5 * leaf, p))
        ),
        params={"w": draw(1, 3, dtype=dtype, scale=0.5), "b": array(0.2, dtype)},
        term=term,
    )


def plain_loss(dtype: Any = jnp.float32) -> Problem:
    """A convex loss that the library does not know, and which couples all outputs."""

    def loss(z):
        joined = jnp.concatenate([z["a"].ravel(), z["b"].ravel()])
        return jnp.log(jnp.sum(jnp.exp(joined))) + 0.25 * jnp.sum(joined**4) + 0.5 * joined @ joined

    a = draw(20, 3, 3, dtype=dtype)
    model = lambda p: {"a": jnp.tanh(a @ p["x"]), "b": p["x"][:2] * p["y"]}
    return Problem(
        objective=so.compose(loss, model),
        params={"x": draw(21, 3, dtype=dtype), "y": draw(22, 2, 1, dtype=dtype)},
        term=lambda z, n: loss(z),
    )


# ------------------------------------------------------------------------- for solvers and methods


def convex_quadratic(dtype: Any = jnp.float32, condition: float = 100.0) -> Problem:
    """``½ (p − p*)ᵀ A (p − p*)`` over a tree of five parameters, eigenvalues 1 to ``condition``."""
    basis, _ = np.linalg.qr(np.asarray(draw(23, 5, 5), np.float64))
    a = jnp.asarray(basis * np.geomspace(1, condition, 5) @ basis.T, dtype)
    minimum = {"u": draw(24, 2, dtype=dtype), "v": draw(25, 3, dtype=dtype)}

    def value(p):
        d = jnp.concatenate([p["u"] - minimum["u"], p["v"] - minimum["v"]])
        return 0.5 * d @ a @ d

    params = jax.tree.map(lambda x: x + 1, minimum)
    return Problem(objective=value, params=params, minimum=minimum)


def rosenbrock(dtype: Any = jnp.float32) -> Problem:
    """The banana-shaped valley as least squares, from its usual start; minimum at (1, 1)."""
    return Problem(
        objective=so.sum_of_squares(lambda p: jnp.stack([10 * (p[1] - p[0] ** 2), 1 - p[0]])),
        params=array([-1.2, 1.0], dtype),
        term=lambda z, n: 0.5 * z[n] ** 2,
        count=2,
        minimum=array([1.0, 1.0], dtype),
    )


def saddle(dtype: Any = jnp.float32) -> Problem:
    """``½ x² − ½ y² + ¼ y⁴`` near its saddle: indefinite there, minima at ``(0, ±1)``."""

    def value(p):
        return 0.5 * p["x"] ** 2 - 0.5 * p["y"] ** 2 + 0.25 * p["y"] ** 4

    return Problem(
        objective=value,
        params={"x": array(1.0, dtype), "y": array(0.1, dtype)},
        minimum={"x": array(0.0, dtype), "y": array(1.0, dtype)},
    )


# ------------------------------------------------------------------------------ the tables of them


def soft_l1_fit(dtype: Any = jnp.float32) -> Problem:
    """:func:`robust` with a smooth absolute value, at a scale where it needs no correction."""
    return robust(so.soft_l1(4.0), lambda s: 2 * ((1 + s) ** 0.5 - 1), 4.0, dtype)


def cauchy_fit(dtype: Any = jnp.float32) -> Problem:
    """:func:`robust` with the Cauchy loss, at a scale where it is convex."""
    return robust(so.cauchy(12.0), lambda s: jnp.log(1 + s), 12.0, dtype)


SPLIT = {  # every loss and every shape of parameters and outputs; all have a model and a loss
    problem.__name__: problem
    for problem in (
        logistic,
        poisson,
        softmax_mlp,
        softmax_one_hot,
        softmax_soft,
        sequences,
        two_heads,
        scalar_output,
        exponential_fit,
        residual_tree,
        soft_l1_fit,
        cauchy_fit,
        penalised,
        plain_loss,
    )
}
PLAIN = {problem.__name__: problem for problem in (convex_quadratic, rosenbrock, saddle)}
