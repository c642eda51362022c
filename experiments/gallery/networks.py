"""Small networks on small data, for pictures that a network's numbers fill."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

Layers = list[dict[str, jax.Array]]


def layers(sizes: Sequence[int], seed: int = 0) -> Layers:
    """Random weights of the usual size, `1/√inputs`, and biases of zero."""
    keys = jax.random.split(jax.random.key(seed), len(sizes) - 1)
    return [
        {"w": jax.random.normal(key, (a, b)) / a**0.5, "b": jnp.zeros(b)}
        for key, a, b in zip(keys, sizes[:-1], sizes[1:], strict=True)
    ]


def apply(params: Layers, x: Any) -> jax.Array:
    """Layer after layer, with a hyperbolic tangent between two of them."""
    *hidden, last = params
    for layer in hidden:
        x = jnp.tanh(x @ layer["w"] + layer["b"])
    return x @ last["w"] + last["b"]
