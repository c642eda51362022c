"""Gradient descent: which way is down, how long a step may be, and which directions are slow."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
from contourpy import contour_generator
from matplotlib.figure import Figure

import secondorder as so
from experiments.figures.style import styled
from experiments.gallery.colours import BLACK, BLUE, GREEN, ORANGE, RED, SKY
from experiments.gallery.lesson import Claim, Lesson, Numbers
from experiments.gallery.surfaces import SURFACES, draw_ground
from experiments.gallery.walk import walk


def contour_numbers() -> Numbers:
    surface = SURFACES["himmelblau"]
    grid = surface.grid(400)
    lines = contour_generator(*(np.asarray(grid[k]) for k in ("x", "y", "f")))
    levels = [10, 30, 60, 100, 150, 250]
    pieces = [np.asarray(line) for level in levels for line in lines.lines(level)]
    middle = np.concatenate([(piece[1:] + piece[:-1]) / 2 for piece in pieces])
    along = np.concatenate([np.diff(piece, axis=0) for piece in pieces])
    slope = np.asarray(jax.vmap(jax.grad(surface.value))(jnp.asarray(middle)))
    length = np.linalg.norm(along, axis=1) * np.linalg.norm(slope, axis=1)
    return {
        "grid": grid,
        "levels": levels,
        "crossings": np.concatenate([middle, slope], axis=1)[20::70],
        "angles": np.degrees(np.arccos(np.sum(along * slope, 1) / length)),
        "path": walk(so.gradient_descent(8e-3), surface.value, surface.start, 40),
    }


@styled
def draw_contours(n: Numbers) -> Figure:
    figure = Figure(figsize=(12.5, 5.8), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(1.2, 1))
    draw_ground(left, n["grid"], 3.0)
    grid = n["grid"]
    left.contour(grid["x"], grid["y"], grid["f"], levels=n["levels"], colors="#16324a",
                 linewidths=1)  # fmt: skip
    x, y, dx, dy = n["crossings"].T
    length = np.hypot(dx, dy)
    u, v = -dx / length, -dy / length
    left.quiver(x, y, u, v, color=RED, scale=26, width=0.0045, zorder=4)
    left.plot([], [], color=RED, marker=">", label="−∇f, downhill")
    left.plot(*n["path"].T, "o-", color=BLACK, markersize=4, linewidth=1.4,
              label="gradient descent")  # fmt: skip
    left.set(xlabel="x", ylabel="y", aspect="equal")
    left.set_title("Arrows cross the contours at right angles")
    left.legend(loc="upper right", frameon=True, framealpha=0.9)
    right.hist(n["angles"], bins=np.linspace(85, 95, 81), color=BLUE)
    right.set(xlabel="angle between gradient and contour [degrees]", ylabel="pieces of contour")
    right.set_title(f"{n['angles'].size:,} pieces of contour, measured")
    return figure


def contour_claims(n: Numbers) -> list[Claim]:
    return [
        Claim("mean angle between gradient and contour, in degrees", float(n["angles"].mean()), 90,
              0.05),
        Claim("the median miss of the right angle, in degrees",
              float(np.median(np.abs(n["angles"] - 90))), 0, 0.2),
    ]  # fmt: skip


EIGENVALUES = (1.0, 20.0)  # of the quadratic on which the length of a step is studied


def step_numbers() -> Numbers:
    low, high = EIGENVALUES
    value = lambda p: 0.5 * (low * p[0] ** 2 + high * p[1] ** 2)
    root = np.sqrt(high / low)
    heavy = ((root - 1) / (root + 1)) ** 2  # Polyak's momentum and step for this spectrum
    choices = {
        "too small": (so.gradient_descent(0.15 * 2 / (low + high)), 0.15 * 2 / (low + high)),
        "right": (so.gradient_descent(2 / (low + high)), 2 / (low + high)),
        "too large": (so.gradient_descent(1.06 * 2 / high), 1.06 * 2 / high),
        "momentum": (
            optax.sgd(4 / (np.sqrt(low) + np.sqrt(high)) ** 2, momentum=heavy),
            4 / (np.sqrt(low) + np.sqrt(high)) ** 2,
        ),
    }
    start = (9.0, 1.0)
    paths = {name: walk(tx, value, start, 80) for name, (tx, _) in choices.items()}
    errors = {name: np.linalg.norm(path, axis=1) for name, path in paths.items()}
    theory = {
        name: max(abs(1 - rate * low), abs(1 - rate * high)) for name, (_, rate) in choices.items()
    } | {"momentum": float(np.sqrt(heavy))}
    measured = {
        name: float(np.exp(np.polyfit(np.arange(30, 81), np.log(error[30:]), 1)[0]))
        for name, error in errors.items()
    }
    x, y = jnp.meshgrid(jnp.linspace(-10, 10, 160), jnp.linspace(-3.2, 3.2, 160))
    return {
        "grid": {"x": x, "y": y, "f": jax.vmap(jax.vmap(value))(jnp.stack([x, y], -1))},
        "paths": paths,
        "errors": errors,
        "rates": {name: rate for name, (_, rate) in choices.items()},
        "theory": theory,
        "measured": measured,
    }


STEP_COLOURS = {"too small": SKY, "right": GREEN, "too large": RED, "momentum": ORANGE}


@styled
def draw_steps(n: Numbers) -> Figure:
    figure = Figure(figsize=(13, 6.4), layout="constrained")
    axes = figure.subplot_mosaic([["a", "b", "e"], ["c", "d", "e"]], width_ratios=(1, 1, 1.05))
    for key, (name, path) in zip("abcd", n["paths"].items(), strict=True):
        draw_ground(axes[key], n["grid"], 0.3)
        shown = path[:7] if name == "too large" else path[:40]
        axes[key].plot(*shown.T, "o-", color=STEP_COLOURS[name], mec=BLACK, mew=0.5, ms=5, lw=1.6)
        axes[key].plot(0, 0, "*", color="white", mec=BLACK, ms=14, zorder=5)
        axes[key].set_title(f"{name}: α = {n['rates'][name]:.3f}")
        axes[key].set(xlabel="x (curvature 1)", ylabel="y (curvature 20)")
    for name, error in n["errors"].items():
        label = f"{name}: × {n['measured'][name]:.3f} a step"
        axes["e"].semilogy(error, color=STEP_COLOURS[name], label=label, linewidth=2.4)
    axes["e"].set(xlabel="step", ylabel="distance to the minimum", ylim=(1e-9, 1e10))
    axes["e"].set_title("Each step multiplies the error")
    axes["e"].legend(loc="upper left")
    return figure


def step_claims(n: Numbers) -> list[Claim]:
    tolerance = {"momentum": 0.03}  # there a double eigenvalue adds a factor of the step's number
    return [
        Claim(f"{name}: what a step multiplies the error by, against theory", n["measured"][name],
              theory, tolerance.get(name, 1e-3))
        for name, theory in n["theory"].items()
    ]  # fmt: skip


SPECTRUM = (1.0, 3.0, 10.0, 30.0, 100.0)


def mode_numbers() -> Numbers:
    size = len(SPECTRUM)
    turn, _ = jnp.linalg.qr(jax.random.normal(jax.random.key(1), (size, size)))
    matrix = turn @ jnp.diag(jnp.array(SPECTRUM)) @ turn.T
    value = lambda p: 0.5 * p @ matrix @ p
    start = turn @ jnp.ones(size)
    eigenvalues, modes = jnp.linalg.eigh(so.dense(so.hessian(value, start), start))
    rate = 1.9 / eigenvalues[-1]
    steps = 60
    path = walk(so.gradient_descent(rate), value, start, steps) @ modes
    newton = walk(so.newton(learning_rate=1.0), value, start, 1) @ modes
    return {
        "eigenvalues": eigenvalues,
        "rate": float(rate),
        "modes": jnp.abs(path),
        "decay": jnp.abs(path[6] / path[5]),
        "theory": jnp.abs(1 - rate * eigenvalues),
        "newton": jnp.abs(newton),
    }


@styled
def draw_modes(n: Numbers) -> Figure:
    figure = Figure(figsize=(12.5, 5.6), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True, width_ratios=(1.7, 1))
    looks = [(BLUE, "o"), (SKY, "s"), (GREEN, "D"), (ORANGE, "^"), (RED, "v")]
    tiny = 1e-17
    for i, (colour, marker) in enumerate(looks):
        label = f"λ = {n['eigenvalues'][i]:.0f}: |1 − αλ| = {n['theory'][i]:.3f}"
        look = {"color": colour, "marker": marker, "mec": "white", "mew": 0.5}
        left.semilogy(np.maximum(n["modes"][:, i], tiny), label=label, markevery=6, **look)
        right.semilogy([0, 1], np.maximum(n["newton"][:, i], tiny), markersize=9, **look)
    left.set(xlabel="step", ylabel="error along the eigenvector", ylim=(tiny / 3, 20))
    left.set_title(f"Gradient descent, α = {n['rate']:.3f}: each mode at its own rate")
    left.legend(loc=(0.6, 0.36))
    right.set(xlabel="step", xticks=(0, 1), xlim=(-0.25, 1.25))
    right.set_title("Newton: all in one step")
    return figure


def mode_claims(n: Numbers) -> list[Claim]:
    claims = [
        Claim(f"the mode of λ = {eigenvalue:.0f} is multiplied by |1 − αλ|", float(found),
              float(theory), 1e-6)
        for eigenvalue, found, theory in zip(n["eigenvalues"], n["decay"], n["theory"], strict=True)
    ]  # fmt: skip
    worst = float(n["newton"][1].max())
    return [*claims, Claim("what one Newton step leaves of the worst mode", worst, 0, 1e-12)]


LESSONS = (
    Lesson("contours", contour_numbers, draw_contours, contour_claims),
    Lesson("step-size", step_numbers, draw_steps, step_claims),
    Lesson("modes", mode_numbers, draw_modes, mode_claims),
)
