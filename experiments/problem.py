"""A problem is data, an initialiser, a batch stream and an objective."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import jax
import numpy as np

Data = Mapping[str, Any]  # named arrays, held-out ones beside the training ones
Params = Any
Batch = Any

#: What an optimizer is; a problem allows each class its own number of steps.
StepClass = Literal["first-order", "quasi-newton", "matrix-free", "dense"]


def full_batch(data: Data, seed: int) -> Iterator[Batch]:
    """All training data at every step."""
    del seed
    batch = {name: array for name, array in data.items() if not name.startswith("held_out")}
    while True:
        yield batch


def minibatches(size: int) -> Callable[[Data, int], Iterator[Batch]]:
    """Batches of `size` training examples, drawn without replacement, reshuffled each epoch."""

    def stream(data: Data, seed: int) -> Iterator[Batch]:
        everything = next(full_batch(data, seed))
        count = len(next(iter(everything.values())))
        generator = np.random.default_rng(seed)
        while True:
            order = generator.permutation(count)
            for start in range(0, count - size + 1, size):
                yield {
                    name: array[order[start : start + size]] for name, array in everything.items()
                }

    return stream


class Picture(NamedTuple):
    """A figure that only this problem has, drawn from the runs of the first seed."""

    name: str
    caption: str
    draw: Callable[..., Any]


@dataclass(frozen=True)
class Problem:
    """What is minimised, from where, and what counts as solved."""

    name: str
    title: str
    description: str
    load: Callable[[], Data]
    init: Callable[[jax.Array, Data], Params]
    objective: Callable[[Batch], Callable[[Params], jax.Array]]
    """The objective of one batch. It is called inside the jitted step, so the batch is traced."""
    targets: tuple[float, ...]
    """Levels whose first crossing the summary reports, loosest first."""
    steps: Mapping[StepClass, int]
    """What each class of optimizers may take; a class without an entry is left out."""
    stream: Callable[[Data, int], Iterator[Batch]] = full_batch
    metrics: Callable[[Params, Data], Mapping[str, jax.Array]] = lambda params, data: {}
    """What else is worth a column: held-out accuracy, a position. The clock stands still for it."""
    measure: Literal["suboptimality", "loss", "error"] = "suboptimality"
    """What the y axis and the targets mean. Suboptimality is (f - f*) / (f0 - f*); an error is one
    of the metrics."""
    optimum: float | None = None
    """f* where it is known in closed form; otherwise a reference solve finds it."""
    float64: bool = True
    random_start: bool = False
    """Whether several seeds say more than one."""
    grad_norm_target: float = 1e-8
    """A run ends when the gradient norm falls to it."""
    tuning_steps: int = 300
    look_every: int = 1
    """A benchmark looks at the error each so many steps: a look costs a step or more."""
    seconds: float | None = None
    """What a run may take, besides its number of steps."""
    step_unit: float = 1.0
    """Where the search for a fixed step begins: one over the curvature, to a decade."""
    looks_at: Callable[[Data], Batch] = lambda data: next(full_batch(data, 0))
    """The batch on which value and gradient are measured while the clock stands still."""
    solved: Callable[[Mapping[str, float]], bool] = lambda row: False
    """Whether a run may end, by what was measured: besides the gradient norm."""
    pictures: tuple[Picture, ...] = ()
    """Figures beside the convergence curves."""
    left_out: Mapping[str, str] = field(default_factory=dict)
    """Why a class of optimizers has no steps here, or why one, by name, is not run."""

    @property
    def is_full_batch(self) -> bool:
        return self.stream is full_batch

    def example(self) -> tuple[Params, Callable[[Params], jax.Array]]:
        """Shapes of the parameters, and the objective, for a look at what they are."""
        with jax.enable_x64(self.float64):
            data = self.load()
            shapes = jax.eval_shape(lambda key: self.init(key, data), jax.random.key(0))
            return shapes, self.objective(self.looks_at(data))


def split(count: int, held_out_fraction: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Indices of the training and of the held-out examples."""
    order = np.random.default_rng(seed).permutation(count)
    held_out = round(count * held_out_fraction)
    return np.sort(order[held_out:]), np.sort(order[:held_out])
