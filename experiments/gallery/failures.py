"""Where pure Newton fails, what damping, line search and trust region do, and who ends where."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure

import secondorder as so
from experiments.figures.style import styled
from experiments.gallery.colours import BLACK, BLUE, GREEN, ORANGE, PINK, RED
from experiments.gallery.lesson import Claim, Lesson, Numbers
from experiments.gallery.surfaces import draw_ground, himmelblau
from experiments.gallery.walk import walk


def saddle(p):
    """A saddle at the origin, minima of −1/4 at x = ±1."""
    return p[0] ** 4 / 4 - p[0] ** 2 / 2 + p[1] ** 2


def plain(p):
    """Convex, least at zero; a pure Newton step takes x to −x³."""
    return jnp.sum(jnp.sqrt(1 + p**2)) - 2


def _pure(value, start, steps: int) -> np.ndarray:
    """`p − H⁻¹ g` and nothing else: the library's own methods never take that unguarded."""
    points = [jnp.asarray(start)]
    step = jax.jit(
        lambda p: p - jnp.linalg.solve(so.dense(so.hessian(value, p), p), jax.grad(value)(p))
    )
    for _ in range(steps):
        points.append(step(points[-1]))
    return np.stack(points)


STEPS = 10
METHODS = {
    "pure Newton": _pure,
    "damping, λ by the gain": partial(
        walk,
        so.scale_by_curvature(so.exact(so.hessian), so.solvers.direct(), so.trust.damping(1.0)),
    ),
    "line search": partial(walk, so.newton()),
    "trust region": partial(walk, so.trust_region_newton(trust=1.0)),
}
METHOD_LOOKS = {
    "pure Newton": (RED, "X"),
    "damping, λ by the gain": (ORANGE, "s"),
    "line search": (BLUE, "o"),
    "trust region": (GREEN, "D"),
}
CASES = {
    "A saddle": (saddle, (0.3, 1.0), (-1.7, 1.7), (-1.2, 1.3), 0.3),
    "A far start": (plain, (1.25, 0.8), (-4.0, 4.0), (-2.2, 2.2), 0.05),
}


def failure_numbers() -> Numbers:
    numbers: Numbers = {}
    for name, (value, start, xs, ys, _) in CASES.items():
        x, y = jnp.meshgrid(jnp.linspace(xs[0], xs[1], 160), jnp.linspace(ys[0], ys[1], 120))
        paths = {
            method: run(value, start, STEPS) if method != "pure Newton" else run(value, start, 4)
            for method, run in METHODS.items()
        }
        ends = {method: path[-1] for method, path in paths.items()}
        numbers[name] = {
            "grid": {"x": x, "y": y, "f": jax.vmap(jax.vmap(value))(jnp.stack([x, y], -1))},
            "paths": paths,
            "values": {m: jax.vmap(value)(jnp.asarray(path)) for m, path in paths.items()},
            "slopes": {m: float(jnp.linalg.norm(jax.grad(value)(jnp.asarray(end))))
                       for m, end in ends.items()},
        }  # fmt: skip
    end = jnp.asarray(numbers["A saddle"]["paths"]["pure Newton"][-1])
    numbers["A saddle"]["bends"] = jnp.linalg.eigvalsh(so.dense(so.hessian(saddle, end), end))
    return numbers


@styled
def draw_failures(n: Numbers) -> Figure:
    figure = Figure(figsize=(13, 9), layout="constrained")
    for (name, found), (above, below) in zip(n.items(), figure.subplots(2, 2).T, strict=True):
        draw_ground(above, {**found["grid"], "f": found["grid"]["f"] - found["grid"]["f"].min()},
                    CASES[name][4])  # fmt: skip
        least = min(values[-1] for values in found["values"].values())
        for method, path in found["paths"].items():
            colour, marker = METHOD_LOOKS[method]
            look = {"color": colour, "marker": marker, "mec": "white", "mew": 0.6}
            above.plot(*path.T, label=method, linewidth=1.8, **look)
            gap = np.maximum(found["values"][method] - least, 1e-16)
            below.semilogy(gap, label=method, **look)
        above.plot(*CASES[name][1], "o", color="white", mec=BLACK, ms=11, zorder=5)
        above.set(xlabel="x", ylabel="y", title=name)
        below.set(xlabel="step", ylabel="f − least f", ylim=(1e-17, 1e5), xlim=(-0.3, STEPS + 0.3))
    figure.axes[0].legend(loc="lower left", frameon=True, framealpha=0.9)
    return figure


def failure_claims(n: Numbers) -> list[Claim]:
    pure = n["A saddle"]["paths"]["pure Newton"][-1]
    far = n["A far start"]["paths"]["pure Newton"][:, 0]
    claims = [
        Claim("pure Newton ends this far from the saddle", float(np.linalg.norm(pure)), 0, 1e-6),
        Claim("the least curvature there", float(n["A saddle"]["bends"][0]), -1, 1e-6),
        Claim("pure Newton from afar: x₂ / (−x₁³)", float(far[2] / -(far[1] ** 3)), 1, 1e-9),
    ]
    for method in list(METHODS)[1:]:
        value = float(n["A saddle"]["values"][method][-1])
        claims.append(Claim(f"{method}: the value it leaves the saddle for", value, -0.25, 1e-9))
        claims.append(Claim(f"{method}: the slope it ends with from afar",
                            n["A far start"]["slopes"][method], 0, 1e-6))  # fmt: skip
    return claims


COARSE, FINE = 120, 240  # starts along each side of the square
MINIMA = ((3.0, 2.0), (-2.805118, 3.131312), (-3.779310, -3.283186), (3.584428, -1.848126))
OTHER, LOST = 4, 5  # a saddle or a maximum; nowhere
BASIN_COLOURS = (BLUE, ORANGE, GREEN, PINK, "#D9D9D9", BLACK)
PANELS = {
    "gradient descent": "gradient descent",
    "pure": "pure Newton",
    "region": "Newton in a trust region",
    "cube": "pure Newton for z³ = 1",
}


def _starts(reach: float, count: int) -> jax.Array:
    side = (jnp.arange(count) + 0.5) / count * 2 * reach - reach
    return jnp.stack(jnp.meshgrid(side, side), -1).reshape(-1, 2)


def _ends(optimizer, steps: int) -> jax.Array:
    """Where an optimizer is after so many steps on Himmelblau's function, from every start."""

    def run(p):
        def step(carry, _):
            p, state = carry
            value, grad = jax.value_and_grad(himmelblau)(p)
            given = {"value": value, "grad": grad, "value_fn": himmelblau}
            updates, state = optimizer.update(grad, state, p, **given)
            return (p + updates, state), None

        return jax.lax.scan(step, (p, optimizer.init(p)), length=steps)[0][0]

    return jax.jit(jax.vmap(run))(_starts(5.0, COARSE))


def _pure_ends(slope, starts: jax.Array, steps: int) -> jax.Array:
    step = lambda p: p - jnp.linalg.solve(jax.jacfwd(slope)(p), slope(p))
    return jax.jit(jax.vmap(lambda p: jax.lax.fori_loop(0, steps, lambda _, p: step(p), p)))(starts)


def _basin(ends: jax.Array, minima: jax.Array, slope) -> np.ndarray:
    """The number of the minimum each end is at, or why it is at none."""
    distance = jnp.linalg.norm(ends[:, None] - minima, axis=-1)
    still = jnp.linalg.norm(jax.vmap(slope)(ends), axis=-1) < 1e-6
    at = jnp.where(distance.min(1) < 1e-3, distance.argmin(1), OTHER)
    side = round(len(ends) ** 0.5)
    return np.asarray(jnp.where(still, at, LOST)).reshape(side, side)


def basin_numbers() -> Numbers:
    slope = jax.grad(himmelblau)
    cube = lambda p: jnp.stack(
        [p[0] ** 3 - 3 * p[0] * p[1] ** 2 - 1, 3 * p[0] ** 2 * p[1] - p[1] ** 3]
    )
    angle = 2 * jnp.pi * jnp.arange(3) / 3
    roots = jnp.stack([jnp.cos(angle), jnp.sin(angle)], -1)
    minima = _pure_ends(slope, jnp.array(MINIMA), 3)
    of = {
        "gradient descent": _basin(_ends(so.gradient_descent(5e-3), 800), minima, slope),
        "pure": _basin(_pure_ends(slope, _starts(5.0, FINE), 50), minima, slope),
        "region": _basin(_ends(so.trust_region_newton(trust=1.0), 30), minima, slope),
        "cube": _basin(_pure_ends(cube, _starts(2.0, FINE), 50), roots, cube),
    }
    inside = np.linalg.norm(np.asarray(_starts(2.0, FINE)), axis=1).reshape(FINE, FINE) < 2
    return {
        "of": of,
        "minima": minima,
        "roots": roots,
        "found": {name: float(np.mean(which < OTHER)) for name, which in of.items()},
        "thirds": [float(np.mean(of["cube"][inside] == k)) for k in range(3)],
    }


@styled
def draw_basins(n: Numbers) -> Figure:
    figure = Figure(figsize=(9.6, 9.8), layout="constrained")
    colours = ListedColormap(list(BASIN_COLOURS))
    for axes, (name, title) in zip(figure.subplots(2, 2).flat, PANELS.items(), strict=True):
        reach = 2 if name == "cube" else 5
        axes.imshow(n["of"][name], origin="lower", extent=(-reach, reach, -reach, reach),
                    cmap=colours, vmin=-0.5, vmax=5.5, interpolation="nearest")  # fmt: skip
        at = n["roots"] if name == "cube" else n["minima"]
        axes.plot(*at.T, "*", color="white", mec=BLACK, ms=13)
        axes.set(xlabel="start: real part" if name == "cube" else "start: x")
        axes.set_ylabel("imaginary part" if name == "cube" else "y", labelpad=0)
        what = "a root" if name == "cube" else "a minimum"
        axes.set_title(f"{title}\n{n['found'][name]:.1%} find {what}")
        axes.grid(visible=False)
    figure.suptitle("Colour: which star a start leads to. Grey: a saddle or a maximum", fontsize=13)
    return figure


def basin_claims(n: Numbers) -> list[Claim]:
    claims = [
        Claim(f"{PANELS[name]}: the share of starts that end in a minimum", n["found"][name], 1,
              0.002)
        for name in ("gradient descent", "region")
    ]  # fmt: skip
    claims.append(Claim("pure Newton: the share that stays nowhere still",
                        float(np.mean(n["of"]["pure"] == LOST)), 0, 0.002))  # fmt: skip
    thirds = float(np.max(np.abs(np.array(n["thirds"]) - 1 / 3)))
    return [
        *claims,
        Claim("z³ = 1: each root has a third of the disc, worst miss", thirds, 0, 0.01),
    ]


LESSONS = (
    Lesson("failures", failure_numbers, draw_failures, failure_claims),
    Lesson("basins", basin_numbers, draw_basins, basin_claims),
)
