"""Dense Jacobians: which mode, in what chunks, and what knowing the examples apart is worth."""

import jax
import jax.numpy as jnp
import pandas as pd

import secondorder as so
from experiments.benchmarks.tables import Report, Request, times
from experiments.benchmarks.timing import Timing, race

SHAPES = (
    (2000, 5),
    (1000, 20),
    (400, 100),
    (250, 160),
    (200, 200),
    (160, 250),
    (20, 1000),
    (5, 2000),
)
CHUNKS = (None, 256, 64, 16)
ROWS = 1000

Titled = tuple[str, pd.DataFrame]


def run(request: Request) -> Report:
    """All tables."""
    del request  # there is nothing to choose
    return Report(dict([crossover(), chunks(), examples()]))


def network(inputs: int, outputs: int, width: int = 64):
    """A tanh network as a function of its inputs."""
    keys = jax.random.split(jax.random.key(0), 3)
    sizes = ((width, inputs), (width, width), (outputs, width))
    first, second, third = (
        jax.random.normal(key, size) / size[1] ** 0.5 for key, size in zip(keys, sizes, strict=True)
    )
    return lambda x: third @ jnp.tanh(second @ jnp.tanh(first @ x))


def crossover() -> Titled:
    """Forward against reverse as n inputs and m outputs trade places."""
    rows = []
    for n, m in SHAPES:
        fn, x = network(n, m), jnp.ones(n)
        modes = {
            mode: (lambda x, mode=mode, fn=fn: so.jacobian(fn, x, mode=mode), (x,))
            for mode in ("forward", "reverse")
        }
        cost = race(modes)
        slower, faster = ("reverse", "forward") if n <= m else ("forward", "reverse")
        rows.append(
            {
                "n inputs": f"{n}",
                "m outputs": f"{m}",
                "the rule takes": faster,
                "other mode: time": ratio(cost[slower].seconds, cost[faster].seconds),
                "memory": ratio(cost[slower].temp_bytes, cost[faster].temp_bytes),
            }
        )
    return "Forward or reverse (a tanh network of width 64)", pd.DataFrame(rows)


def chunks() -> Titled:
    """Peak temporary memory and time of a Jacobian in chunks."""
    n, width = 512, 16384
    keys = jax.random.split(jax.random.key(2), 2)
    first = jax.random.normal(keys[0], (width, n)) / n**0.5
    second = jax.random.normal(keys[1], (n, width)) / width**0.5
    x = jnp.ones(n)

    def fn(x):
        return second @ jnp.tanh(first @ x)

    cost = race(
        {str(c): (lambda x, c=c: so.jacobian(fn, x, chunk_size=c), (x,)) for c in CHUNKS}, 3
    )
    whole = cost["None"]
    rows = [
        (name, f"{t.temp_bytes / 1e6:.2f} MB", ratio(t.seconds, whole.seconds))
        for name, t in cost.items()
    ]
    header = ["chunk_size", "peak temporary memory", "time / all at once"]
    size = 4e-6 * n * n
    title = f"Chunks bound memory ({n} inputs and outputs, {width} hidden; result {size:.1f} MB)"
    return title, pd.DataFrame(rows, columns=header)


def examples() -> Titled:
    """A thousand rows that know they are independent, against the same batch closed over."""
    width = 32
    keys = jax.random.split(jax.random.key(1), 3)
    params = {
        "hidden": jax.random.normal(keys[0], (2, width)),
        "bias": jnp.zeros(width),
        "out": jax.random.normal(keys[1], (width,)),
    }
    points = jax.random.normal(keys[2], (ROWS, 2))

    def model(p, x):
        return jnp.tanh(x @ p["hidden"] + p["bias"]) @ p["out"]

    def apart(points):
        objective = so.per_example(so.losses.half_sum_of_squares(), model, points)
        return so.jacobian(objective.model, params)

    def closed_over(points, mode):
        objective = so.sum_of_squares(lambda p: jax.vmap(model, (None, 0))(p, points))
        return so.jacobian(objective.model, params, mode=mode)

    cost: dict[str, Timing] = race(
        {
            "per_example": (apart, (points,)),
            "closed over, forward": (lambda x: closed_over(x, "forward"), (points,)),
            "closed over, reverse": (lambda x: closed_over(x, "reverse"), (points,)),
        }
    )
    best = cost["per_example"]
    rows = [
        (
            name,
            f"{1e3 * t.seconds:.2f} ms",
            ratio(t.seconds, best.seconds),
            f"{t.temp_bytes / 1e6:.2f} MB",
        )
        for name, t in cost.items()
    ]
    title = f"The Jacobian of {ROWS} rows and {so.tree.size(params)} parameters"
    header = ["form", "time", "/ per_example", "peak temporary memory"]
    return title, pd.DataFrame(rows, columns=header)


def ratio(a: float, b: float) -> str:
    return times(a / max(b, 1e-12))
