"""The ways of three methods down four surfaces, and of training through a network's loss."""

import io
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.flatten_util import ravel_pytree
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patheffects import Normal, Stroke
from matplotlib.ticker import MaxNLocator
from PIL import Image
from sklearn.datasets import load_iris

import secondorder as so
from experiments.figures.style import styled
from experiments.figures.valley import GROUND
from experiments.gallery import networks
from experiments.gallery.colours import BLACK, BLUE, ORANGE
from experiments.gallery.lesson import Claim, Lesson, Numbers
from experiments.gallery.surfaces import SURFACES, draw_ground
from experiments.gallery.walk import until, walk

SOLVED = 1e-6  # the value of the function at which a path counts as arrived
STEPS = 20_000
LOOKS: dict[str, dict[str, Any]] = {
    "momentum 0.9": {"color": ORANGE, "linewidth": 2.6},
    "gradient descent": {"color": BLACK, "linewidth": 1.3},
    "Newton": {"color": BLUE, "marker": "o", "markersize": 6, "mec": "white", "mew": 0.6},
}
OUTLINE = [Stroke(linewidth=4, foreground="white", alpha=0.8), Normal()]
FRAMES = 60


def surface_numbers() -> Numbers:
    numbers: Numbers = {}
    for name, surface in SURFACES.items():
        methods = {
            "momentum 0.9": (optax.sgd(surface.rate / 3, momentum=0.9), STEPS),
            "gradient descent": (so.gradient_descent(surface.rate), STEPS),
            "Newton": (so.newton(), 40),
        }
        paths, arrived, ends = {}, {}, {}
        for method, (optimizer, steps) in methods.items():
            path = walk(optimizer, surface.value, surface.start, steps)
            arrived[method] = until(path, surface.value, SOLVED)
            paths[method] = path[: arrived[method] + 1]
            ends[method] = float(surface.value(jnp.asarray(path[arrived[method]])))
        heights = {
            method: jnp.log10(jax.vmap(surface.value)(jnp.asarray(path)) + surface.lift)
            for method, path in paths.items()
        }
        numbers[name] = {"grid": surface.grid(), "paths": paths, "heights": heights,
                         "steps": arrived, "ends": ends}  # fmt: skip
    return numbers


def _draw_surface(axes: Any, name: str, n: Numbers) -> None:
    surface, grid = SURFACES[name], n["grid"]
    height = np.log10(grid["f"] + surface.lift)
    axes.plot_surface(grid["x"], grid["y"], height, cmap=GROUND, rcount=150, ccount=150,
                      linewidth=0, antialiased=False, rasterized=True)  # fmt: skip
    lift = 0.02 * np.ptp(height)
    for method, path in n["paths"].items():
        x, y = path.T
        inside = (abs(x - np.mean(surface.x)) <= np.ptp(surface.x) / 2) & (
            abs(y - np.mean(surface.y)) <= np.ptp(surface.y) / 2
        )
        z = np.where(inside, n["heights"][method] + lift, np.nan)
        label = f"{method}: {n['steps'][method]:,} steps"
        axes.plot(x, y, z, label=label, path_effects=OUTLINE, **LOOKS[method])
        axes.plot(x[-1:], y[-1:], z[-1:], "*", color="white", mec=BLACK, ms=15, zorder=9)
    axes.set(xlabel="x", ylabel="y", xlim=surface.x, ylim=surface.y)
    axes.set_zlabel(f"log₁₀(f + {surface.lift:g})")
    axes.view_init(*surface.view)
    axes.set_box_aspect((1.3, 1.1, 0.62), zoom=1.15)
    axes.zaxis.set_major_locator(MaxNLocator(4, integer=True))
    for artist in (*axes.collections, *axes.lines):
        artist.set_clip_on(False)
    for axis in (axes.xaxis, axes.yaxis, axes.zaxis):
        axis.set_pane_color((1, 1, 1, 0))
    axes.set_title(surface.title, y=1.09)
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.09), fontsize=10.5)


@styled
def draw_surfaces(n: Numbers) -> Figure:
    figure = Figure(figsize=(13, 11.6))
    for i, (name, numbers) in enumerate(n.items()):
        place = (0.02 + 0.48 * (i % 2), 0.612 - 0.49 * (i // 2), 0.46, 0.34)
        axes: Any = figure.add_axes(place, projection="3d", computed_zorder=False)
        _draw_surface(axes, name, numbers)
    return figure


def surface_claims(n: Numbers) -> list[Claim]:
    claims = [
        Claim(f"{method} ends in a minimum of {SURFACES[name].title}: the value there",
              end, 0, SOLVED)
        for name, numbers in n.items() for method, end in numbers["ends"].items()
    ]  # fmt: skip
    steps = n["bowl"]["steps"]["Newton"]
    return [*claims, Claim("Newton's steps on the quadratic", steps, 1, 0)]


@styled
def animate_surfaces(n: Numbers) -> bytes:
    """All paths over the contours, growing step by step together."""
    figure = Figure(figsize=(8.4, 7.2), layout="constrained", dpi=72)
    maps = figure.subplots(2, 2)
    moving = []
    for axes, (name, numbers) in zip(maps.flat, n.items(), strict=True):
        draw_ground(axes, numbers["grid"], SURFACES[name].lift)
        for method, path in numbers["paths"].items():
            (line,) = axes.plot([], [], label=method, path_effects=OUTLINE, **LOOKS[method])
            moving.append((line, path))
        axes.plot(*numbers["paths"]["Newton"][-1], "*", color="white", mec=BLACK, ms=14, zorder=9)
        axes.set_title(SURFACES[name].title)
    handles, labels = maps.flat[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3)
    count = figure.text(0.01, 0.012, "", fontsize=12)
    canvas, frames = FigureCanvasAgg(figure), []
    canvas.draw()
    ground = canvas.copy_from_bbox(figure.bbox)
    # The clock runs faster and faster, so that Newton's few steps and the thousands are both seen.
    for step in np.unique(np.geomspace(1, STEPS, FRAMES).astype(int)):
        canvas.restore_region(ground)
        for line, path in moving:
            line.set_data(*path[: step + 1].T)
            line.axes.draw_artist(line)
        count.set_text(f"step {step:,}")
        figure.draw_artist(count)
        frames.append(Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB"))
    frames = [frame.quantize(96) for frame in frames]
    content = io.BytesIO()
    pauses = [120] * (len(frames) - 1) + [2500]
    frames[0].save(content, "GIF", save_all=True, append_images=frames[1:], duration=pauses, loop=0)
    return content.getvalue()


def training_numbers() -> Numbers:
    data: Any = load_iris()
    x = jnp.asarray((data.data - data.data.mean(0)) / data.data.std(0))
    flat, tree = ravel_pytree(networks.layers([4, 5, 3], seed=1))
    loss = so.softmax_cross_entropy(jnp.asarray(data.target))
    value = jax.jit(so.compose(loss, lambda w: networks.apply(tree(w), x)))
    path = walk(optax.sgd(0.1, momentum=0.9), value, flat, 300)
    # The plane through the end of the path that holds most of it: two principal directions.
    spread = path - path[-1]
    _, singular, directions = np.linalg.svd(spread, full_matrices=False)
    plane = directions[:2]
    places = spread @ plane.T
    low, high = places.min(0), places.max(0)
    margin = 0.3 * (high - low).max()
    a, b = np.meshgrid(
        np.linspace(low[0] - margin, high[0] + margin, 70),
        np.linspace(low[1] - margin, high[1] + margin, 70),
    )
    points = jnp.asarray(path[-1] + a[..., None] * plane[0] + b[..., None] * plane[1])
    return {
        "x": a,
        "y": b,
        "f": jax.vmap(jax.vmap(value))(points),
        "places": places,
        "values": jax.vmap(value)(jnp.asarray(path)),
        "above": jax.vmap(value)(jnp.asarray(path[-1] + places @ plane)),
        "explained": float((singular[:2] ** 2).sum() / (singular**2).sum()),
        "weights": flat.size,
    }


@styled
def draw_training(n: Numbers) -> Figure:
    figure = Figure(figsize=(13, 6))
    solid: Any = figure.add_axes((0.0, 0.06, 0.5, 0.86), projection="3d", computed_zorder=False)
    flat = figure.add_axes((0.58, 0.15, 0.4, 0.76))
    height = np.log10(n["f"])
    solid.plot_surface(n["x"], n["y"], height, cmap=GROUND, rcount=70, ccount=70, linewidth=0,
                       antialiased=False, rasterized=True)  # fmt: skip
    x, y = n["places"].T
    z = np.log10(n["above"]) + 0.03
    look: dict[str, Any] = {"color": ORANGE, "linewidth": 2.6, "path_effects": OUTLINE}
    solid.plot(x, y, z, **look)
    solid.set(xlabel="first direction", ylabel="second direction")
    solid.set_zlabel("log₁₀ loss [nats]", labelpad=12)
    solid.view_init(38, -62)
    solid.set_box_aspect((1.3, 1.1, 0.7), zoom=1.0)
    for axis in (solid.xaxis, solid.yaxis, solid.zaxis):
        axis.set_pane_color((1, 1, 1, 0))
    solid.set_title(f"A plane through the space of {n['weights']} weights")
    levels = np.geomspace(n["f"].min(), n["f"].max(), 18)
    flat.contourf(n["x"], n["y"], height, levels=18, cmap=GROUND, alpha=0.5).set_rasterized(True)
    lines = flat.contour(n["x"], n["y"], n["f"], levels=levels[1::3], colors="#16324a",
                         linewidths=0.8)  # fmt: skip
    flat.clabel(lines, fmt="%.2f", fontsize=9.5)
    flat.plot(x, y, **look, label="training, 300 steps with momentum")
    for step in (0, 5, 20, 100):
        flat.annotate(f"{step}", (x[step], y[step]), xytext=(6, 5), textcoords="offset points",
                      fontweight="bold")  # fmt: skip
        flat.plot(x[step], y[step], "o", color=ORANGE, mec=BLACK, ms=7, zorder=5)
    flat.plot(0, 0, "*", color="white", mec=BLACK, ms=16, zorder=6)
    flat.set(xlabel="first direction", ylabel="second direction")
    flat.set_title(f"{n['explained']:.0%} of the path lies in this plane")
    flat.grid(visible=False)
    flat.legend(loc="upper right", frameon=True, framealpha=0.9)
    return figure


def training_claims(n: Numbers) -> list[Claim]:
    return [
        Claim("the share of the path's extent that the plane holds", n["explained"], 1, 0.1),
        Claim("the plane's loss at the end of the path is the network's, ratio",
              float(n["above"][-1] / n["values"][-1]), 1, 1e-9),
    ]  # fmt: skip


LESSONS = (
    Lesson("surfaces", surface_numbers, draw_surfaces, surface_claims, animate=animate_surfaces),
    Lesson("training", training_numbers, draw_training, training_claims),
)
