"""Fashion-MNIST: photographs of clothes in ten classes, and a small convolutional network.

The data are those of Debian's package ``dataset-fashion-mnist`` where it is installed, and else of
OpenML by scikit-learn, which keeps them in its own folder.

Source: Xiao, Rasul and Vollgraf (2017), arXiv 1708.07747.
"""

import functools
import gzip
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from sklearn.datasets import fetch_openml

import secondorder as so
from experiments.errors import Unavailable
from experiments.problem import Problem, minibatches

PACKAGE = Path("/usr/share/datasets/fashion-mnist")
SIDE, TRAINING, CLASSES = 28, 60_000, 10
CHANNELS = (16, 32)
MEAN, DEVIATION = 0.286, 0.353  # of all training pixels
BATCH = 256
TARGETS = (0.15, 0.125, 0.1)


@functools.cache
def load():
    images, labels = _packaged() if PACKAGE.is_dir() else _fetched()
    return {
        "images": images[:TRAINING],
        "labels": labels[:TRAINING],
        "held_out_images": images[TRAINING:],
        "held_out_labels": labels[TRAINING:],
    }


def _packaged():
    """Images (70000, 28, 28, 1) as bytes and their classes, from the files of the package."""

    def read(name: str, header: int) -> np.ndarray:
        contents = gzip.decompress((PACKAGE / name).read_bytes())
        return np.frombuffer(contents, np.uint8, offset=header)

    parts = ("train", "t10k")
    images = np.concatenate([read(f"{part}-images-idx3-ubyte.gz", 16) for part in parts])
    labels = np.concatenate([read(f"{part}-labels-idx1-ubyte.gz", 8) for part in parts])
    return images.reshape(-1, SIDE, SIDE, 1), labels.astype(np.int32)


def _fetched():
    try:
        data, target = fetch_openml(
            "Fashion-MNIST", version=1, as_frame=False, return_X_y=True, n_retries=0
        )
    except (OSError, ValueError) as error:
        raise Unavailable(
            "Fashion-MNIST is not on this machine, and OpenML does not answer. Install Debian's "
            "package `dataset-fashion-mnist` (31 MB), or run once with a network."
        ) from error
    return data.astype(np.uint8).reshape(-1, SIDE, SIDE, 1), target.astype(np.int32)


def init(key, data):
    """He-normal kernels, zero biases of the last layer, norms that begin as the identity."""
    del data

    def kernel(index: int, shape: tuple[int, ...]):
        draw = jax.random.normal(jax.random.fold_in(key, index), shape, jnp.float32)
        return draw * (2 / np.prod(shape[:-1])) ** 0.5

    layers = [
        {
            "kernel": kernel(k, (3, 3, before, after)),
            "norm_scale": jnp.ones(after, jnp.float32),
            "norm_shift": jnp.zeros(after, jnp.float32),
        }
        for k, (before, after) in enumerate(zip((1, *CHANNELS), CHANNELS, strict=False))
    ]
    places = (SIDE // 2 ** len(CHANNELS)) ** 2
    head = kernel(len(CHANNELS), (places * CHANNELS[-1], CLASSES)) / 2**0.5
    return {"layers": layers, "head": {"kernel": head, "bias": jnp.zeros(CLASSES, jnp.float32)}}


def logits(params, images):
    """Convolutions of stride two, normalised over each image, and one layer."""
    x = (images.astype(jnp.float32) / 255 - MEAN) / DEVIATION
    for layer in params["layers"]:
        x = jax.lax.conv_general_dilated(
            x, layer["kernel"], (2, 2), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )
        x = x - x.mean((1, 2, 3), keepdims=True)
        x = x * jax.lax.rsqrt(jnp.mean(x * x, (1, 2, 3), keepdims=True) + 1e-6)
        x = jax.nn.relu(x * layer["norm_scale"] + layer["norm_shift"])
    head = params["head"]
    return x.reshape(len(x), -1) @ head["kernel"] + head["bias"]


def objective(batch):
    loss = so.softmax_cross_entropy(batch["labels"])
    return so.compose(loss, lambda params: logits(params, batch["images"]))


def error(params, data):
    """Share of the test images in a wrong class."""
    found = jnp.argmax(logits(params, data["held_out_images"]), axis=-1)
    return {"error": jnp.mean((found != data["held_out_labels"]).astype(jnp.float32))}


PROBLEM = Problem(
    name="fashion-mnist",
    title="Fashion-MNIST: a small convolutional network",
    description=(
        f"60,000 images in batches of {BATCH}, two convolutions to "
        f"{' and '.join(map(str, CHANNELS))} channels, normalised over each image, cross-entropy "
        "of ten classes; the error is the share of the 10,000 test images in a wrong class, so "
        "0.1 is 90 % right."
    ),
    load=load,
    init=init,
    objective=objective,
    metrics=error,
    measure="loss",
    targets=TARGETS,
    steps={"first-order": 1500, "dense": 1000},
    stream=minibatches(BATCH),
    looks_at=lambda data: {
        "images": data["images"][:BATCH],
        "labels": data["labels"][:BATCH],
    },
    solved=lambda row: row["error"] <= TARGETS[-1],
    float64=False,
    random_start=True,
    grad_norm_target=1e-9,
    tuning_steps=150,
    look_every=25,
    left_out={
        "quasi-newton": "a line search follows the noise of a batch",
        "matrix-free": "it takes large batches",
        "sgd": "AdamW and Muon stand for first-order methods",
        "sophia": "AdamW stands for methods with a diagonal",
        "adahessian": "AdamW stands for methods with a diagonal",
        "kl-shampoo": "KL-SOAP stands for both",
        "layerwise-gauss-newton": "it takes large batches",
    },
)
