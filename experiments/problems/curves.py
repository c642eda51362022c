"""CURVES: a deep autoencoder on images of smooth curves, which stopped first-order methods in 2006.

The images are made here, for the original ones are not to be had under a licence: the parabola
through three random points, drawn on 28 x 28 pixels with a soft pen, so that an image has six
degrees of freedom. Pen and frame are chosen such that the images are as hard to compress as the
original: 18 principal components leave a squared error of 5.6 per image (5.9 in the paper's figure
2), the mean image leaves 24.8.

Source: Hinton and Salakhutdinov (2006), for the task; Martens and Grosse (2015), as a benchmark.
"""

import dataclasses
import functools

import numpy as np

from experiments.problem import Problem, minibatches
from experiments.problems import networks

SIZES = (784, 400, 200, 100, 50, 25, 6, 25, 50, 100, 200, 400, 784)
SIDE = 28
COUNT = 20_000
FRAME = 6.0, 22.0  # where the points are
PEN = 1.1  # pixels, the standard deviation of the pen's intensity
SAMPLES = 48  # points that a curve is drawn through
BATCH = 1000
LOOK = 2000  # images on which the error is measured
TARGETS = (10.0, 5.0, 2.0)


def curves(count: int, seed: int) -> np.ndarray:
    """`count` images, (count, 784), in [0, 1]."""
    generator = np.random.default_rng(seed)
    points = generator.uniform(*FRAME, (count, 3, 2)).astype(np.float32)
    t = np.linspace(0, 1, SAMPLES, dtype=np.float32)[:, None]
    through = np.hstack([2 * (t - 0.5) * (t - 1), 4 * t * (1 - t), 2 * t * (t - 0.5)])
    paths = np.einsum("tk,nkd->ntd", through, points)
    chunks = np.array_split(paths, max(count // 250, 1))
    return np.concatenate([_drawn(chunk) for chunk in chunks]).reshape(count, -1)


def _drawn(paths: np.ndarray) -> np.ndarray:
    """Polylines (n, samples, 2) as images: the pen's intensity at the distance from the line."""
    centres = np.arange(SIDE, dtype=np.float32) + 0.5
    nearest = np.full((len(paths), SIDE, SIDE), np.inf, np.float32)
    for begin, end in zip(paths.swapaxes(0, 1)[:-1], paths.swapaxes(0, 1)[1:], strict=True):
        along = end - begin
        square = np.maximum((along**2).sum(-1), 1e-12)[:, None, None]
        dx = centres[None, None, :] - begin[:, 0, None, None]
        dy = centres[None, :, None] - begin[:, 1, None, None]
        at = np.clip((dx * along[:, 0, None, None] + dy * along[:, 1, None, None]) / square, 0, 1)
        gap = (dx - at * along[:, 0, None, None]) ** 2 + (dy - at * along[:, 1, None, None]) ** 2
        nearest = np.minimum(nearest, gap)
    return np.exp(-nearest / (2 * PEN**2))


@functools.cache
def load():
    images = curves(COUNT + LOOK, seed=0)
    return {"inputs": images[:COUNT], "held_out_inputs": images[COUNT:]}


PROBLEM = Problem(
    name="curves",
    title="CURVES: a deep autoencoder, one batch",
    description=(
        f"One batch of {BATCH:,} images of 28 x 28 pixels, the same at every step, "
        f"{'-'.join(map(str, SIZES))} tanh units, cross-entropy of the pixels; the error is "
        "squared, per image of the batch: how fast is the objective minimised. Predicting the mean "
        "image: 24.8."
    ),
    load=lambda: {"inputs": load()["inputs"][:BATCH]},
    init=lambda key, data: networks.init(key, SIZES),
    objective=networks.reconstruction,
    metrics=lambda params, data: {"error": networks.squared_error(params, data["inputs"])},
    measure="loss",
    targets=TARGETS,
    steps={"first-order": 300, "quasi-newton": 300, "matrix-free": 40, "dense": 150},
    solved=lambda row: row["error"] <= TARGETS[-1],
    float64=False,
    random_start=True,
    grad_norm_target=1e-6,
    tuning_steps=100,
    look_every=2,
)

MINIBATCHES = dataclasses.replace(
    PROBLEM,
    name="curves-minibatches",
    title="CURVES: a deep autoencoder, minibatches",
    description=(
        f"The same network on {COUNT:,} images in batches of {BATCH:,}; the error is of {LOOK:,} "
        "further images. The noise of the batches now sets a pace of its own."
    ),
    load=load,
    metrics=lambda params, data: {"error": networks.squared_error(params, data["held_out_inputs"])},
    stream=minibatches(BATCH),
    looks_at=lambda data: {"inputs": data["inputs"][:BATCH]},
)
