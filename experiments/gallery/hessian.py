"""The Hessian: a quadratic model at a point, and five matrices that are called curvature."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.flatten_util import ravel_pytree
from matplotlib.colors import SymLogNorm
from matplotlib.figure import Figure
from sklearn.datasets import load_iris

import secondorder as so
from experiments.figures.style import styled
from experiments.figures.valley import GROUND
from experiments.gallery import networks
from experiments.gallery.colours import BLACK, BLUE, ORANGE, RED
from experiments.gallery.lesson import Claim, Lesson, Numbers
from experiments.gallery.surfaces import himmelblau
from experiments.gallery.walk import fitted_power, walk


def crest(p):
    """A mountain ridge of constant height above a bent line."""
    return 100 * jnp.exp(-0.5 * (p[1] - 0.1 * p[0] ** 2) ** 2)


PLACES = {
    "a minimum": (himmelblau, (2.9, 2.1)),
    "a saddle": (himmelblau, (0.1, 2.8)),
    "a ridge": (crest, (0.0, 0.0)),
}
REACH = 1.5  # half the width of the windows


def model_numbers() -> Numbers:
    return {name: _model_at(value, jnp.array(near)) for name, (value, near) in PLACES.items()}


def _model_at(value: Callable, near: jax.Array) -> Numbers:
    """The function and its quadratic model around a point where the gradient is zero."""
    # The pseudo-inverse, since a ridge is flat in one direction.
    matrix = lambda p: so.dense(so.hessian(value, p), p)
    step = lambda _, p: p - jnp.linalg.pinv(matrix(p)) @ jax.grad(value)(p)
    point = jax.jit(lambda p: jax.lax.fori_loop(0, 8, step, p))(near)
    hessian = so.hessian(value, point)
    eigenvalues, vectors = jnp.linalg.eigh(matrix(point))
    quadratic = so.Quadratic(jax.grad(value)(point), hessian)
    function = jax.jit(lambda d: value(point + d))
    model = jax.jit(lambda d: value(point) + quadratic(d))
    t = jnp.linspace(-REACH, REACH, 121)
    x, y = jnp.meshgrid(t, t)
    everywhere = lambda fn: jax.vmap(jax.vmap(fn))(jnp.stack([x, y], -1))
    along = lambda fn: jax.vmap(jax.vmap(fn))(t[None, :, None] * vectors.T[:, None, :])
    # How far model and function part, over all directions, as the distance shrinks.
    radii = jnp.geomspace(0.02, 0.2, 6)
    turn = jnp.linspace(0, 2 * jnp.pi, 60)
    ring = jnp.stack([jnp.cos(turn), jnp.sin(turn)], -1)
    rings = radii[:, None, None] * ring
    misses = jnp.abs(jax.vmap(jax.vmap(lambda d: function(d) - model(d)))(rings)).max(1)
    return {
        "point": point,
        "eigenvalues": eigenvalues,
        "vectors": vectors,
        "t": t,
        "x": point[0] + x,
        "y": point[1] + y,
        "f": everywhere(function),
        "m": everywhere(model),
        "along": along(function),
        "model": along(model),
        "power": fitted_power(radii, misses),
    }


@styled
def draw_models(n: Numbers) -> Figure:
    figure = Figure(figsize=(13, 8), layout="constrained")
    panels = figure.subplots(2, 3, height_ratios=(1.35, 1))
    for i, (name, found) in enumerate(n.items()):
        above, below = panels[:, i]
        levels = np.quantile(found["f"], np.linspace(0.03, 0.97, 11))
        levels = np.unique(levels)
        above.contourf(found["x"], found["y"], found["f"], levels=20, cmap=GROUND,
                       alpha=0.55).set_rasterized(True)  # fmt: skip
        above.contour(found["x"], found["y"], found["f"], levels=levels, colors="#16324a",
                      linewidths=1)  # fmt: skip
        above.contour(found["x"], found["y"], found["m"], levels=levels, colors=[RED],
                      linewidths=1.4, linestyles="dashed")  # fmt: skip
        for k, colour in enumerate((BLUE, ORANGE)):
            vector, value = found["vectors"][:, k], found["eigenvalues"][k]
            ends = np.stack([found["point"] - 1.3 * vector, found["point"] + 1.3 * vector])
            above.plot(*ends.T, color=colour, linewidth=3)
            below.plot(found["t"], found["along"][k], color=colour, label=f"λ = {value:.1f}")
            below.plot(found["t"], found["model"][k], "--", color=colour, linewidth=1.5)
        above.plot(*found["point"], "o", color="white", mec=BLACK, ms=9, zorder=5)
        above.set(xlabel="x", ylabel="y", title=name.capitalize(), aspect="equal")
        above.grid(visible=False)
        low, high = np.min(found["along"]), np.max(found["along"])
        below.set(ylim=(low - 0.1 * (high - low), high + 0.35 * (high - low)))
        below.set(xlabel="distance along an eigenvector", ylabel="f, dashed: model")
        below.legend(loc="upper center", ncols=2)
    figure.suptitle("Solid: the function. Dashed: its quadratic model. Thick: the eigenvectors",
                    fontsize=13)  # fmt: skip
    return figure


def model_claims(n: Numbers) -> list[Claim]:
    signs = {"a minimum": (1, 1), "a saddle": (-1, 1)}
    claims = [
        Claim(f"{name}: sign of the {'first' if k == 0 else 'second'} eigenvalue",
              float(np.sign(n[name]["eigenvalues"][k])), sign, 0)
        for name, both in signs.items() for k, sign in enumerate(both)
    ]  # fmt: skip
    flat = n["a ridge"]["eigenvalues"]
    claims.append(Claim("a ridge: the flat over the steep curvature", flat[1] / flat[0], 0, 1e-6))
    claims += [
        Claim(f"{name}: the model's error grows with this power of the distance",
              found["power"], 3, 0.15)
        for name, found in n.items() if name != "a ridge"
    ]  # fmt: skip
    return claims


NAMES = ("Hessian", "Gauss-Newton", "Fisher, 300 samples", "empirical Fisher", "K-FAC")


def matrix_numbers() -> Numbers:
    data: Any = load_iris()
    x = jnp.asarray((data.data - data.data.mean(0)) / data.data.std(0))
    labels = jnp.asarray(data.target)
    params = networks.layers([4, 3, 3], seed=3)
    flat, tree = ravel_pytree(params)
    loss = so.softmax_cross_entropy(labels)
    objective = so.compose(loss, lambda p: networks.apply(p, x))
    # Not at the minimum, where the residuals and with them the differences are small.
    path = walk(optax.sgd(0.1), lambda w: objective(tree(w)), flat, 12)
    params = tree(jnp.asarray(path[-1]))
    of_each = so.per_example(loss, lambda p, example: networks.apply(p, example), x)
    layers = so.curvature.layerwise(objective, so.curvature.ggn_components(), decay=0.0)

    @jax.jit
    def matrices_at(params):
        grads = jax.grad(objective)(params)
        kfac, _ = layers.update(grads, layers.init(params), params, objective)
        operators = {
            "Hessian": so.hessian(objective, params),
            "Gauss-Newton": so.ggn(objective, params),
            "Fisher, 300 samples": so.fisher(objective, params, jax.random.key(0), samples=300),
            "empirical Fisher": so.empirical_fisher(of_each, params),
            "K-FAC": kfac,
        }
        return {name: so.dense(operator, params) for name, operator in operators.items()}

    # A jitted function gives dictionaries back sorted by name.
    found = matrices_at(params)
    matrices = {name: found[name] for name in NAMES}
    return {
        "matrices": matrices,
        "sizes": [leaf.size for leaf in jax.tree.leaves(params)],
        "least": {name: float(jnp.linalg.eigvalsh(m)[0]) for name, m in matrices.items()},
    }


def _distance(n: Numbers, name: str) -> float:
    exact = n["matrices"]["Gauss-Newton"]
    return float(np.linalg.norm(n["matrices"][name] - exact) / np.linalg.norm(exact))


@styled
def draw_matrices(n: Numbers) -> Figure:
    figure = Figure(figsize=(13.5, 9), layout="constrained")
    panels = figure.subplots(2, 3).ravel()
    largest = max(abs(matrix).max() for matrix in n["matrices"].values())
    norm = SymLogNorm(largest / 100, vmin=-largest, vmax=largest)
    edges = np.cumsum(n["sizes"])
    middles = edges - np.array(n["sizes"]) / 2 - 0.5
    names = ["b₁", "W₁", "b₂", "W₂"]
    image: Any = None
    for axes, (name, matrix) in zip(panels, n["matrices"].items(), strict=False):
        image = axes.imshow(matrix, cmap="RdBu_r", norm=norm)
        for edge in edges[:-1]:
            axes.axhline(edge - 0.5, color=BLACK, linewidth=0.7)
            axes.axvline(edge - 0.5, color=BLACK, linewidth=0.7)
        axes.set_xticks(middles, names)
        axes.set_yticks(middles, names)
        axes.tick_params(length=0)
        axes.grid(visible=False)
        far = "" if name == "Gauss-Newton" else f"\n{_distance(n, name):.0%} from Gauss-Newton"
        axes.set_title(f"{name}{far}", fontsize=12)
    spectra = panels[-1]
    looks = [(BLACK, "o"), (BLUE, "s"), ("#56B4E9", "^"), (ORANGE, "D"), ("#009E73", "v")]
    for (name, matrix), (colour, marker) in zip(n["matrices"].items(), looks, strict=True):
        spectra.plot(np.linalg.eigvalsh(matrix)[::-1], marker=marker, color=colour, ms=4.5,
                     lw=1.2, label=name)  # fmt: skip
    spectra.set_yscale("symlog", linthresh=1e-3)
    spectra.set(xlabel="number of the eigenvalue", title="Their eigenvalues")
    spectra.legend(loc="upper right", fontsize=9.5)
    figure.colorbar(image, ax=panels, label="entry [nats per squared unit of weight]", shrink=0.7)
    return figure


def matrix_claims(n: Numbers) -> list[Claim]:
    matrices = n["matrices"]
    largest = float(np.linalg.eigvalsh(matrices["Gauss-Newton"])[-1])
    # Blocks of the same layer agree in the mean; between layers K-FAC has nothing.
    size = n["sizes"][0] + n["sizes"][1]
    between = float(np.abs(matrices["K-FAC"][:size, size:]).max())
    last = slice(size, None)
    trace = lambda name: float(np.trace(matrices[name][last, last]))
    return [
        Claim("Gauss-Newton's least eigenvalue, relative to its greatest",
              n["least"]["Gauss-Newton"] / largest, 0, 1e-10),
        Claim("the sign of the Hessian's least eigenvalue", float(np.sign(n["least"]["Hessian"])),
              -1, 0),
        Claim("the sampled Fisher's distance from Gauss-Newton, which it estimates",
              _distance(n, "Fisher, 300 samples"), 0, 0.05),
        Claim("K-FAC's greatest entry between the two layers", between, 0, 0),
        Claim("K-FAC's trace over Gauss-Newton's, last layer", trace("K-FAC") /
              trace("Gauss-Newton"), 1, 0.3),
    ]  # fmt: skip


LESSONS = (
    Lesson("models", model_numbers, draw_models, model_claims),
    Lesson("matrices", matrix_numbers, draw_matrices, matrix_claims),
)
