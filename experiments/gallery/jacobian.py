"""The Jacobian: what a map does to a small circle, and what a network's outputs listen to."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.flatten_util import ravel_pytree
from matplotlib.figure import Figure
from sklearn.datasets import load_digits

import secondorder as so
from experiments.figures.style import styled
from experiments.gallery import networks
from experiments.gallery.colours import BLACK, BLUE, GREY, ORANGE, RED
from experiments.gallery.lesson import Claim, Lesson, Numbers
from experiments.gallery.walk import fitted_power, walk

POINT = (0.6, 0.4)
RADIUS = 0.25


def bend(p):
    """A smooth map of the plane that stretches, shears and turns."""
    x, y = p
    return jnp.stack([x + 0.4 * jnp.sin(1.5 * y), 0.7 * y + 0.3 * x**2])


def map_numbers() -> Numbers:
    point = jnp.array(POINT)
    matrix = so.jacobian(bend, point)
    left, singular, right = jnp.linalg.svd(matrix)
    circle = lambda r, n=720: (
        r
        * jnp.stack(
            [jnp.cos(jnp.linspace(0, 2 * jnp.pi, n)), jnp.sin(jnp.linspace(0, 2 * jnp.pi, n))], -1
        )
    )
    mapped = lambda r: jax.vmap(bend)(point + circle(r)) - bend(point)
    radii = jnp.array([0.25, 0.1, 0.04, 0.016])
    linear = lambda r: circle(r) @ matrix.T
    misses = [jnp.linalg.norm(mapped(r) - linear(r), axis=1).max() for r in radii]
    tiny = mapped(1e-4) / 1e-4
    lengths = jnp.linalg.norm(tiny, axis=1)
    x, y = tiny.T
    area = 0.5 * jnp.abs(jnp.sum(x[:-1] * y[1:] - x[1:] * y[:-1]))
    ticks, fine = jnp.linspace(-1.0, 2.2, 17), jnp.linspace(-1.0, 2.2, 100)
    rows = [jnp.stack([fine, jnp.full_like(fine, t)], -1) for t in ticks]
    lines = rows + [row[:, ::-1] for row in rows]
    return {
        "point": point,
        "image": bend(point),
        "lines": lines,
        "bent": [jax.vmap(bend)(line) for line in lines],
        "circle": point + circle(RADIUS),
        "mapped": bend(point) + mapped(RADIUS),
        "ellipse": bend(point) + linear(RADIUS),
        "left": left,
        "right": right,
        "singular": singular,
        "determinant": float(jnp.abs(jnp.linalg.det(matrix))),
        "longest": float(lengths.max()),
        "shortest": float(lengths.min()),
        "area": float(area / jnp.pi),
        "radii": radii,
        "misses": jnp.stack(misses),
    }


@styled
def draw_map(n: Numbers) -> Figure:
    figure = Figure(figsize=(12.5, 6), layout="constrained")
    before, after = figure.subplots(1, 2)
    for axes, lines, center in ((before, n["lines"], n["point"]), (after, n["bent"], n["image"])):
        for line in lines:
            axes.plot(*line.T, color="#C4CCD4", linewidth=1)
        axes.plot(*center, "o", color=BLACK, markersize=6, zorder=5)
        axes.set(aspect="equal")
        axes.grid(visible=False)
    before.plot(*n["circle"].T, color=BLUE, linewidth=2.6, label="a circle")
    after.plot(*n["mapped"].T, color=BLUE, linewidth=2.6, label="where the circle really goes")
    after.plot(*n["ellipse"].T, "--", color=BLACK, linewidth=1.8, label="where J says: an ellipse")
    for i, colour in enumerate((RED, ORANGE)):
        size = n["singular"][i]
        arrow: dict[str, Any] = {"color": colour, "width": 0.012, "length_includes_head": True,
                                 "head_width": 0.05, "zorder": 4}  # fmt: skip
        before.arrow(*n["point"], *(RADIUS * n["right"][i]), **arrow)
        after.arrow(*n["image"], *(RADIUS * size * n["left"][:, i]), **arrow)
        after.plot([], [], color=colour, label=f"singular value {size:.3f}")
    before.set(xlabel="x", ylabel="y", title="Before", xlim=(-0.4, 1.5), ylim=(-0.5, 1.4))
    after.set(xlabel="first output", ylabel="second output", title="After")
    x, y = n["image"]
    after.set(xlim=(x - 1.0, x + 0.9), ylim=(y - 0.75, y + 1.15))
    before.legend(loc="upper left", frameon=True, framealpha=0.95)
    after.legend(loc="upper left", frameon=True, framealpha=0.95)
    return figure


def map_claims(n: Numbers) -> list[Claim]:
    return [
        Claim("the longest radius of a tiny mapped circle is the first singular value",
              n["longest"], float(n["singular"][0]), 1e-3),
        Claim("the shortest is the second", n["shortest"], float(n["singular"][1]), 1e-3),
        Claim("its area over the circle's is |det J|", n["area"], n["determinant"], 1e-3),
        Claim("what the ellipse misses falls with this power of the radius",
              fitted_power(n["radii"][1:], n["misses"][1:]), 2, 0.05),
    ]  # fmt: skip


def digits_numbers() -> Numbers:
    data: Any = load_digits()
    x, labels = jnp.asarray(data.data / 16.0), jnp.asarray(data.target)
    flat, tree = ravel_pytree(networks.layers([64, 24, 10], seed=0))
    loss = so.compose(so.softmax_cross_entropy(labels), lambda w: networks.apply(tree(w), x))
    value = lambda w: (
        loss(w) + 1e-3 * w @ w
    )  # else pixels that are always blank keep random weights
    trained = tree(jnp.asarray(walk(optax.adam(2e-2), value, flat, 120)[-1]))
    shown = 3
    image = x[int(np.flatnonzero(data.target == shown)[0])]
    model = lambda pixels: networks.apply(trained, pixels)
    matrix = so.jacobian(model, image)
    nudge = 0.01 * jax.random.normal(jax.random.key(0), (64,))
    accuracy = jnp.mean(jnp.argmax(networks.apply(trained, x), 1) == labels)
    return {
        "image": image.reshape(8, 8),
        "outputs": model(image),
        "jacobian": matrix,
        "accuracy": float(accuracy),
        "foretold": matrix @ nudge,
        "measured": model(image + nudge) - model(image),
        "modes": float(
            jnp.abs(so.jacobian(model, image, mode="forward")
                    - so.jacobian(model, image, mode="reverse")).max()
        ),
        "singular": jnp.linalg.svd(matrix, compute_uv=False),
    }  # fmt: skip


@styled
def draw_digits(n: Numbers) -> Figure:
    figure = Figure(figsize=(12.5, 5.3), layout="constrained")
    panels = figure.subplots(2, 6).ravel()
    for axes in panels:
        axes.set(xticks=[], yticks=[])
        axes.grid(visible=False)
    panels[0].imshow(n["image"], cmap="Greys")
    panels[0].set_title("the input")
    largest = abs(n["jacobian"]).max()
    order = [*range(1, 6), *range(7, 12)]
    picture: Any = None
    for digit, place in enumerate(order):
        axes = panels[place]
        picture = axes.imshow(
            n["jacobian"][digit].reshape(8, 8), cmap="RdBu_r", vmin=-largest, vmax=largest
        )
        axes.contour(n["image"], levels=[0.4], colors=GREY, linewidths=1)
        axes.set_title(f"score of {digit}: {n['outputs'][digit]:+.1f}", fontsize=11)
    panels[6].set_frame_on(False)
    panels[6].text(0.5, 0.5, "each square:\none row of the\n10 × 64 Jacobian", ha="center",
                   va="center", transform=panels[6].transAxes, fontsize=11)  # fmt: skip
    label = "∂ score / ∂ brightness of the pixel"
    figure.colorbar(picture, ax=panels, label=label, shrink=0.8, pad=0.01)
    figure.suptitle(
        "What each of the ten outputs listens to, at this image "
        f"({n['accuracy']:.1%} of the digits are read rightly)",
        fontsize=13,
    )
    return figure


def digits_claims(n: Numbers) -> list[Claim]:
    size = np.linalg.norm(n["measured"])
    return [
        Claim("forward and reverse mode, worst difference of an entry", n["modes"], 0, 1e-12),
        Claim("what J foretells of a small random change of the image, relative miss",
              float(np.linalg.norm(n["foretold"] - n["measured"]) / size), 0, 0.05),
    ]  # fmt: skip


LESSONS = (
    Lesson("map", map_numbers, draw_map, map_claims),
    Lesson("outputs", digits_numbers, draw_digits, digits_claims),
)
