"""An autoencoder of small patches of photographs: the smallest network with a use."""

import functools

import jax.numpy as jnp
import numpy as np

import secondorder as so
from experiments.problem import Problem
from experiments.problems import networks
from experiments.problems.photographs import grey

SIDE = 8
COUNT = 1_000  # patches, half of them of each photograph
HELD_OUT = 500
SIZES = (64, 32, 8, 32, 64)
SEED = 0


def patches(image: np.ndarray, count: int, generator: np.random.Generator) -> np.ndarray:
    """`count` patches of an image at random places, (count, 64), each less its mean."""
    places = [generator.integers(0, side - SIDE + 1, count) for side in image.shape]
    cut = [image[i : i + SIDE, j : j + SIDE].ravel() for i, j in zip(*places, strict=True)]
    return np.stack(cut) - np.mean(cut, axis=1, keepdims=True)


@functools.cache
def load():
    """In units of the training pixels' standard deviation."""
    generator = np.random.default_rng(SEED)
    half = lambda count: [patches(image, count // 2, generator) for image in grey()]
    training, held_out = (np.concatenate(half(count)) for count in (COUNT, HELD_OUT))
    scaled = lambda x: np.asarray(x / training.std(), np.float32)
    return {"inputs": scaled(training), "held_out_inputs": scaled(held_out)}


def objective(batch):
    return so.per_example(so.squared_error(batch["inputs"]), networks.outputs, batch["inputs"])


def metrics(params, data):
    images = data["held_out_inputs"]
    left = networks.outputs(params, images) - images
    return {"held_out_error": jnp.mean(jnp.sum(left**2, axis=-1)) / 2}


PROBLEM = Problem(
    name="photo-patches",
    title="An autoencoder of patches of photographs",
    description=(
        f"{COUNT:,} patches of {SIDE} x {SIDE} pixels from two photographs, {HELD_OUT} more held "
        f"out; each less its mean, {'-'.join(map(str, SIZES))} tanh units, 4,744 parameters, half "
        "the squared error, in float32, full batch. Zero leaves 32; as many principal components "
        "as there are code units, eight, leave 14.2. Not convex and without a known optimum."
    ),
    load=load,
    init=lambda key, data: networks.init(key, SIZES),
    objective=objective,
    metrics=metrics,
    measure="loss",
    targets=(20.0, 16.0, 14.0),
    steps={"first-order": 600, "quasi-newton": 200, "matrix-free": 30},
    left_out={
        "dense": "a Jacobian of 64,000 rows and 4,744 columns fills 1.2 GB, and a step "
        "factorises it",
        **dict.fromkeys(
            ("bfgs", "ssbfgs", "ssbroyden"),
            "its inverse of 4,744 x 4,744 numbers costs a hundred gradients a step",
        ),
        "sr1": "the eigenvalues of a 4,744 x 4,744 matrix take fifteen seconds a step",
    },
    float64=False,
    random_start=True,
    grad_norm_target=1e-5,
    tuning_steps=200,
)
