"""Functions of two parameters that optimizers are shown on: value, window, start and minima."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.axes import Axes

from experiments.figures.valley import GROUND
from experiments.testset.classical import beale, himmelblau, rosenbrock


@dataclass(frozen=True)
class Surface:
    """A function of two parameters whose least value is zero."""

    title: str
    value: Callable[[Any], jax.Array]
    x: tuple[float, float]
    y: tuple[float, float]
    start: tuple[float, float]
    rate: float
    """A learning rate for gradient descent near the greatest that is stable there."""
    lift: float = 0.03
    """Heights are drawn as log₁₀(f + lift), so that a minimum has a bottom."""
    view: tuple[float, float] = (52, -70)

    def grid(self, points: int = 150) -> dict[str, Any]:
        """Coordinates and values over the window."""
        x, y = jnp.meshgrid(jnp.linspace(*self.x, points), jnp.linspace(*self.y, points))
        value = jax.vmap(jax.vmap(self.value))(jnp.stack([x, y], axis=-1))
        return {"x": x, "y": y, "f": value}


def bowl(p):
    """A quadratic of condition number 100, its axes turned by 30 degrees."""
    c, s = np.cos(np.pi / 6), np.sin(np.pi / 6)
    return 0.5 * (c * p[0] + s * p[1]) ** 2 + 50.0 * (c * p[1] - s * p[0]) ** 2


SURFACES = {
    "rosenbrock": Surface(
        "Rosenbrock's valley", rosenbrock, (-1.7, 1.7), (-0.7, 2.2), (-1.2, 1.0), 1.5e-3
    ),
    "beale": Surface(
        "Beale's function", beale, (-1.0, 4.0), (-2.0, 2.0), (0.5, -1.5), 5e-3, 0.1, (52, -110)
    ),
    "himmelblau": Surface(
        "Himmelblau's four minima", himmelblau, (-5.0, 5.0), (-5.0, 5.0), (-0.5, -4.0), 1e-2, 3.0
    ),
    "bowl": Surface(
        "A quadratic with κ = 100", bowl, (-3.2, 3.2), (-2.4, 2.4), (-2.6, -0.3), 1.9e-2, 0.05
    ),
}


def draw_ground(axes: Axes, grid: dict[str, Any], lift: float, levels: int = 22) -> None:
    """Filled contours on the logarithmic scale that paths are drawn over."""
    height = np.log10(grid["f"] + lift)
    axes.contourf(
        grid["x"], grid["y"], height, levels=levels, cmap=GROUND, alpha=0.5
    ).set_rasterized(True)
    axes.set(xlim=(grid["x"].min(), grid["x"].max()), ylim=(grid["y"].min(), grid["y"].max()))
    axes.grid(visible=False)
