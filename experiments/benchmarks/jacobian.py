"""Dense Jacobians: which mode, in what chunks, and what examples apart are worth."""

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
    return Report(dict([crossover(), chunks(), examples(), residuals()]))


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
        slower, faster = ("reverse", "forward") if n <= 2 * m else ("forward", "reverse")
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
    """A thousand independent rows, given or found apart, against passes for all of them."""
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
            "closed over": (lambda x: closed_over(x, "auto"), (points,)),
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


def residuals() -> Titled:
    """The ways in which people write the residual of an equation, against ``per_example``."""
    sizes = (2, 24, 24, 1)
    keys = jax.random.split(jax.random.key(3), 5)
    params = [
        (jax.random.normal(key, (a, b)) / a**0.5, jnp.zeros(b))
        for key, a, b in zip(keys[:3], sizes[:-1], sizes[1:], strict=True)
    ]
    points, edge = jax.random.uniform(keys[3], (400, 2)), jax.random.uniform(keys[4], (80, 2))

    def u(p, x):
        for kernel, bias in p[:-1]:
            x = jnp.tanh(x @ kernel + bias)
        return (x @ p[-1][0] + p[-1][1])[..., 0]

    def hessian(p, x):
        return jnp.trace(jax.hessian(u, 1)(p, x))

    def tangents(fn, x, along):
        slope = lambda x: jax.jvp(fn, (x,), (along,))[1]
        return jax.jvp(slope, (x,), (along,))[1]

    axes = jnp.eye(2)
    nested = lambda p, x: sum(tangents(lambda x: u(p, x), x, axes[i]) for i in range(2))
    batch = lambda p: sum(
        tangents(lambda x: u(p, x), points, jnp.broadcast_to(axes[i], points.shape))
        for i in range(2)
    )

    def of_sum(p, i):
        slope = lambda x: jax.grad(lambda x: u(p, x).sum())(x)[:, i].sum()
        return jax.grad(slope)(points)[:, i]

    forms = {
        "vmap of a Hessian": lambda p: jax.vmap(lambda x: hessian(p, x))(points),
        "vmap of nested jvps": lambda p: jax.vmap(lambda x: nested(p, x))(points),
        "the batch by jvps": batch,
        "lax.map": lambda p: jax.lax.map(lambda x: hessian(p, x), points),
        "two terms": lambda p: jnp.concatenate(
            [jax.vmap(lambda x: hessian(p, x))(points), u(p, edge)]
        ),
        "gradient of the sum": lambda p: of_sum(p, 0) + of_sum(p, 1),
    }
    known = so.per_example(so.losses.half_sum_of_squares(), hessian, points).model
    cost: dict[str, Timing] = race(
        {
            "per_example": (lambda p: so.jacobian(known, p), (params,)),
            **{
                name: (lambda p, fn=fn: so.jacobian(fn, p), (params,)) for name, fn in forms.items()
            },
            **{
                f"{name}, mode='forward'": (
                    lambda p, fn=fn: so.jacobian(fn, p, mode="forward"),
                    (params,),
                )
                for name, fn in forms.items()
            },
        }
    )
    best = cost["per_example"]
    rows = [
        (name, f"{1e3 * t.seconds:.2f} ms", ratio(t.seconds, best.seconds))
        for name, t in cost.items()
    ]
    title = f"A Laplacian at {len(points)} points, {so.tree.size(params)} parameters"
    return title, pd.DataFrame(rows, columns=["form", "time", "/ per_example"])


def ratio(a: float, b: float) -> str:
    return times(a / max(b, 1e-12))
