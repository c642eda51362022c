"""The chain rule: sensitivities on a graph, and the product of layer Jacobians."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import TwoSlopeNorm
from matplotlib.figure import Figure
from matplotlib.patches import Circle

import secondorder as so
from experiments.figures.style import styled
from experiments.gallery import networks
from experiments.gallery.colours import BLACK, BLUE, GREY, RED
from experiments.gallery.lesson import Claim, Lesson, Numbers

INPUT, TARGET = (1.0, -0.5), 1.0


def graph_numbers() -> Numbers:
    first, second = networks.layers([2, 3, 1], seed=4)

    def run(taps):
        """The loss and the value at each node; a tap is a nudge of that node alone."""
        x = jnp.array(INPUT) + taps["x"]
        z = x @ first["w"] + taps["z"]
        h = jnp.tanh(z) + taps["h"]
        y = h @ second["w"] + taps["y"]
        return 0.5 * jnp.sum((y - TARGET) ** 2), {"x": x, "z": z, "h": h, "y": y}

    sizes = {"x": 2, "z": 3, "h": 3, "y": 1}
    still = {name: jnp.zeros(size) for name, size in sizes.items()}
    (loss, values), backward = jax.value_and_grad(run, has_aux=True)(still)
    slopes = 1 - values["h"] ** 2  # of the hyperbolic tangent
    paths = first["w"] * slopes * second["w"][:, 0] * (values["y"] - TARGET)
    nudge = 1e-6
    nudged = {
        name: [
            (run(still | {name: nudge * jnp.eye(size)[i]})[0] - loss) / nudge for i in range(size)
        ]
        for name, size in sizes.items()
    }
    return {
        "loss": float(loss),
        "values": values,
        "sensitivities": backward,
        "first": first["w"],
        "second": second["w"],
        "slopes": slopes,
        "paths": paths,
        "nudged": {name: jnp.stack(found) for name, found in nudged.items()},
    }


def _node(axes: Axes, place: Any, name: str, value: float, sensitivity: float) -> None:
    x, y = place
    axes.add_patch(Circle((x, y), 0.43, facecolor="white", edgecolor=BLACK, lw=1.6, zorder=3))
    text = partial(axes.text, ha="center", va="center", zorder=4)
    text(x, y + 0.23, name, fontsize=12, fontstyle="italic")
    text(x, y + 0.01, f"{value:+.3f}", fontsize=12, color=BLUE, fontweight="bold")
    text(x, y - 0.2, f"{sensitivity:+.3f}", fontsize=12, color=RED, fontweight="bold")


def _edge(axes: Axes, start: Any, end: Any, text: str, share: float, weight: float) -> None:
    (x0, y0), (x1, y1) = start, end
    axes.plot([x0, x1], [y0, y1], color=GREY, lw=0.8 + 2.2 * min(abs(weight), 1.5), zorder=1)
    place = x0 + share * (x1 - x0), y0 + share * (y1 - y0)
    box = {"facecolor": "white", "edgecolor": "none", "pad": 1.2}
    axes.text(*place, text, ha="center", va="center", fontsize=11, bbox=box, zorder=2)


@styled
def draw_graph(n: Numbers) -> Figure:
    figure = Figure(figsize=(12.5, 6.2), layout="constrained")
    axes = figure.subplots()
    axes.set_axis_off()
    tall = np.array([1.4, 0.0, -1.4])
    places = {
        "x": [(0, 0.9), (0, -0.9)],
        "z": [(2.2, y) for y in tall],
        "h": [(4.0, y) for y in tall],
        "y": [(6.1, 0.0)],
    }
    for j, z in enumerate(places["z"]):
        for i, x in enumerate(places["x"]):
            weight = n["first"][i, j]
            _edge(axes, x, z, f"{weight:+.2f}", (0.66, 0.36)[(i + j) % 2], weight)
        _edge(axes, z, places["h"][j], f"tanh′ {n['slopes'][j]:.2f}", 0.5, n["slopes"][j])
        weight = n["second"][j, 0]
        _edge(axes, places["h"][j], places["y"][0], f"{weight:+.2f}", 0.5, weight)
    _edge(axes, places["y"][0], (7.9, 0), f"y − {TARGET:g}", 0.5, 0.5)
    for name, where in places.items():
        for i, place in enumerate(where):
            label = name if name == "y" else f"{name}{'₁₂₃'[i]}"
            _node(axes, place, label, n["values"][name][i], n["sensitivities"][name][i])
    _node(axes, (7.9, 0), "loss", n["loss"], 1.0)
    axes.annotate(
        "", (7.9, 2.35), (0, 2.35), arrowprops={"arrowstyle": "-|>", "color": BLUE, "lw": 2}
    )
    axes.text(0, 2.44, "forward: values", color=BLUE, fontsize=13, fontweight="bold")
    axes.annotate(
        "", (0, -2.3), (7.9, -2.3), arrowprops={"arrowstyle": "-|>", "color": RED, "lw": 2}
    )
    axes.text(7.9, -2.21, "backward: ∂ loss / ∂ node", color=RED, fontsize=13, fontweight="bold",
              ha="right")  # fmt: skip
    axes.set(xlim=(-0.5, 8.4), ylim=(-2.5, 2.75), aspect="equal")
    axes.set_title("Values go right, sensitivities come back through the same edges")
    return figure


def graph_claims(n: Numbers) -> list[Claim]:
    found = n["paths"].sum(1)
    miss = max(
        float(np.abs(n["nudged"][name] - n["sensitivities"][name]).max()) for name in n["values"]
    )
    claims = [
        Claim(f"the three paths from x{i + 1} to the loss, each multiplied along, add up to ∂L/∂x",
              float(found[i]), float(n["sensitivities"]["x"][i]), 1e-12)
        for i in range(2)
    ]  # fmt: skip
    return [*claims, Claim("the worst miss of a red number against a real nudge", miss, 0, 1e-5)]


def product_numbers() -> Numbers:
    sizes = [6, 8, 5, 3, 1]
    params = networks.layers(sizes, seed=2)
    x = jax.random.normal(jax.random.key(5), (sizes[0],))
    layer = lambda p, last: lambda h: h @ p["w"] if last else jnp.tanh(h @ p["w"] + p["b"])
    jacobians = []
    h = x
    for i, p in enumerate(params):
        step = layer(p, i == len(params) - 1)
        jacobians.append(so.jacobian(step, h))
        h = step(h)
    gradient = jax.grad(lambda x: networks.apply(params, x)[0])(x)
    from_right = jacobians[0]
    for matrix in jacobians[1:]:
        from_right = matrix @ from_right
    from_left = jacobians[-1]
    for matrix in jacobians[-2::-1]:
        from_left = from_left @ matrix
    wide = list(zip(sizes[:-1], sizes[1:], strict=True))
    return {
        "jacobians": jacobians,
        "from_right": from_right,
        "from_left": from_left,
        "gradient": gradient,
        # A row times each matrix, or each matrix times as many columns as there are inputs.
        "reverse": sum(a * b for a, b in wide[:-1]),
        "forward": sum(a * b for a, b in wide[1:]) * sizes[0],
    }


@styled
def draw_product(n: Numbers) -> Figure:
    figure = Figure(figsize=(13.5, 4.2), layout="constrained")
    matrices = [*n["jacobians"][::-1], n["from_left"], n["gradient"][None]]
    widths = [max(matrix.shape[1], 1.7) for matrix in matrices]
    panels = figure.subplots(1, len(matrices), width_ratios=widths)
    titles = ["J₄", "J₃", "J₂", "J₁", "J₄ J₃ J₂ J₁", "gradient"]
    norm = TwoSlopeNorm(0, -1, 1)
    image: Any = None
    for i, (axes, matrix, title) in enumerate(zip(panels, matrices, titles, strict=True)):
        image = axes.imshow(matrix, cmap="RdBu_r", norm=norm, aspect="equal")
        rows, columns = matrix.shape
        axes.set_title(title)
        axes.set_xlabel(f"{rows} × {columns}")
        axes.set(xticks=[], yticks=[])
        axes.grid(visible=False)
        for side in axes.spines.values():
            side.set_visible(True)
        for row, column in np.ndindex(rows, columns):
            strong = abs(matrix[row, column]) > 0.6
            digits = 2 if i >= len(n["jacobians"]) else 1
            axes.text(column, row, f"{matrix[row, column]:.{digits}f}", ha="center", va="center",
                      fontsize=8, color="white" if strong else BLACK)  # fmt: skip
        if i < len(matrices) - 1:
            sign = "×" if i < 3 else "="
            axes.text(1.0, 0.5, f"   {sign}", transform=axes.transAxes, fontsize=20, va="center")
    figure.colorbar(image, ax=panels, label="derivative", shrink=0.75, pad=0.01, extend="both")
    figure.suptitle(
        f"From the left (reverse mode) {n['reverse']} multiplications, "
        f"from the right (forward mode) {n['forward']}",
        fontsize=13,
    )
    return figure


def product_claims(n: Numbers) -> list[Claim]:
    return [
        Claim(f"Jacobians multiplied {name.replace('_', ' the ')}, less the gradient: worst entry",
              float(np.abs(n[name][0] - n["gradient"]).max()), 0, 1e-13)
        for name in ("from_left", "from_right")
    ]  # fmt: skip


LESSONS = (
    Lesson("graph", graph_numbers, draw_graph, graph_claims),
    Lesson("product", product_numbers, draw_product, product_claims),
)
