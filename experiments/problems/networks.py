"""Feed-forward networks: what the autoencoders and the classifier share."""

import itertools
from collections.abc import Sequence

import jax
import jax.numpy as jnp

import secondorder as so


def init(key: jax.Array, sizes: Sequence[int]):
    """LeCun-normal kernels, zero biases."""
    layers = []
    for k, (fan_in, fan_out) in enumerate(itertools.pairwise(sizes)):
        kernel = jax.random.normal(jax.random.fold_in(key, k), (fan_in, fan_out), jnp.float32)
        layers.append({"kernel": kernel / fan_in**0.5, "bias": jnp.zeros(fan_out, jnp.float32)})
    return tuple(layers)


def outputs(params, inputs: jax.Array) -> jax.Array:
    """Tanh units, linear outputs."""
    *hidden, last = params
    for layer in hidden:
        inputs = jnp.tanh(inputs @ layer["kernel"] + layer["bias"])
    return inputs @ last["kernel"] + last["bias"]


def squared_error(params, images: jax.Array) -> jax.Array:
    """Of the reconstructed intensities, summed over the pixels, a mean over the images."""
    found = jax.nn.sigmoid(outputs(params, images))
    return jnp.mean(jnp.sum((found - images) ** 2, axis=-1))


def reconstruction(batch) -> so.Objective:
    """Cross-entropy of the reconstructed pixels."""
    loss = so.sigmoid_cross_entropy(batch["inputs"])
    return so.compose(loss, lambda params: outputs(params, batch["inputs"]))
