"""What products of Jacobians cost and how large they become: both modes, and depth."""

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure

import secondorder as so
from experiments.benchmarks.timing import race
from experiments.figures.style import styled
from experiments.gallery.colours import BLACK, BLUE, GREEN, ORANGE, RED, SKY
from experiments.gallery.lesson import Claim, Lesson, Numbers

FIXED = 64  # inputs or outputs that stay while the others grow
SIZES = (8, 16, 32, 64, 128, 256, 512)


def mode_numbers() -> Numbers:
    def program(mode: str, inputs: int, outputs: int):
        keys = jax.random.split(jax.random.key(0), 2)
        a = jax.random.normal(keys[0], (inputs, 256)) / inputs**0.5
        b = jax.random.normal(keys[1], (256, outputs)) / 16
        model = lambda x: jnp.tanh(jnp.tanh(x @ a) @ b)
        return (lambda x: so.jacobian(model, x, mode=mode)), (jnp.ones(inputs),)

    numbers: Numbers = {"sizes": SIZES}
    for panel in ("inputs", "outputs"):
        shape = lambda size, panel=panel: (size, FIXED) if panel == "inputs" else (FIXED, size)
        programs = {
            f"{mode} {size}": program(mode, *shape(size))
            for mode in ("forward", "reverse") for size in SIZES
        }  # fmt: skip
        times = race(programs, repetitions=15)
        seconds = {
            mode: np.array([times[f"{mode} {size}"].seconds for size in SIZES])
            for mode in ("forward", "reverse")
        }
        numbers[panel] = seconds | {"crossover": _crossing(seconds["forward"] / seconds["reverse"])}
    return numbers


def _crossing(ratio: np.ndarray) -> float:
    """The size at which a ratio passes one for the last time, between two sizes."""
    x, y = np.log(SIZES), np.log(ratio)
    i = np.flatnonzero(np.diff(np.sign(y)))[-1]
    return float(np.exp(x[i] - y[i] * (x[i + 1] - x[i]) / (y[i + 1] - y[i])))


@styled
def draw_modes(n: Numbers) -> Figure:
    figure = Figure(figsize=(12.5, 5.2), layout="constrained")
    for axes, panel in zip(figure.subplots(1, 2, sharey=True), ("inputs", "outputs"), strict=True):
        other = "outputs" if panel == "inputs" else "inputs"
        for mode, colour, marker in (("forward", ORANGE, "s"), ("reverse", BLUE, "o")):
            label = f"{mode}: a pass per {'input' if mode == 'forward' else 'output'}"
            axes.loglog(n["sizes"], 1e3 * n[panel][mode], color=colour, marker=marker,
                        label=label)  # fmt: skip
        crossing = n[panel]["crossover"]
        axes.axvline(crossing, color=BLACK, linestyle=":", label=f"they meet at {crossing:.0f}")
        axes.set_xticks(n["sizes"], [str(size) for size in n["sizes"]])
        axes.minorticks_off()
        axes.set(xlabel=f"{panel}, with {FIXED} {other}")
        axes.set_title(f"The {panel} grow")
        axes.legend(loc="upper left")
        axes.set_ylim(top=4e3 * max(n[panel]["forward"].max(), n[panel]["reverse"].max()))
    figure.axes[0].set_ylabel("time for the Jacobian [milliseconds]")
    return figure


def mode_claims(n: Numbers) -> list[Claim]:
    return [
        Claim(f"log₁₀ of the {panel} where the modes cost the same",
              float(np.log10(n[panel]["crossover"])), float(np.log10(FIXED)), 0.5)
        for panel in ("inputs", "outputs")
    ]  # fmt: skip


DEPTH, WIDTH, SEEDS = 60, 64, 8
STACKS = {
    "linear, σ = 1.25": (1.25, lambda h, w: h @ w, RED, "solid"),
    "linear, σ = 1": (1.0, lambda h, w: h @ w, BLACK, "solid"),
    "linear, σ = 0.8": (0.8, lambda h, w: h @ w, BLUE, "solid"),
    "tanh, σ = 1": (1.0, lambda h, w: jnp.tanh(h @ w), SKY, (0, (4, 1.5))),
    "tanh, σ = 2": (2.0, lambda h, w: jnp.tanh(h @ w), ORANGE, (0, (4, 1.5))),
    "h + tanh / depth, σ = 1": (1.0, lambda h, w: h + jnp.tanh(h @ w) / DEPTH, GREEN, "dashdot"),
}


def depth_numbers() -> Numbers:
    def lengths(key, scale, layer):
        """How long a small change of the input is after each layer."""
        weights = scale * jax.random.normal(key, (DEPTH, WIDTH, WIDTH)) / WIDTH**0.5
        start = jax.random.normal(jax.random.fold_in(key, 1), (2, WIDTH))

        def step(carry, w):
            h, v = jax.jvp(lambda h: layer(h, w), (carry[0],), (carry[1],))
            return (h, v), jnp.linalg.norm(v)

        return jax.lax.scan(step, (start[0], start[1] / jnp.linalg.norm(start[1])), weights)[1]

    keys = jax.random.split(jax.random.key(0), SEEDS)
    found = {
        name: jax.vmap(lambda key, s=scale, l=layer: lengths(key, s, l))(keys)
        for name, (scale, layer, _, _) in STACKS.items()
    }
    return {
        "lengths": {name: jnp.exp(jnp.log(x).mean(0)) for name, x in found.items()},
        "factors": {name: float(jnp.exp(jnp.log(x[:, -1]).mean() / DEPTH))
                    for name, x in found.items()},
    }  # fmt: skip


@styled
def draw_depth(n: Numbers) -> Figure:
    figure = Figure(figsize=(10.5, 5.8), layout="constrained")
    axes = figure.subplots()
    layers = np.arange(1, DEPTH + 1)
    for name, (_, _, colour, dashes) in STACKS.items():
        label = f"{name}: × {n['factors'][name]:.3f} a layer"
        axes.semilogy(layers, n["lengths"][name], color=colour, linestyle=dashes, label=label)
    axes.set(xlabel="layers multiplied", ylabel="length of J…J₂J₁v, ‖v‖ = 1", ylim=(1e-7, 1e10))
    axes.set_title(f"Sixty factors: {WIDTH} neurons a layer, mean of {SEEDS} random networks")
    axes.legend(loc="upper left", ncols=2)
    return figure


def depth_claims(n: Numbers) -> list[Claim]:
    # A Gaussian matrix lengthens a vector by σ, less a little since the logarithm is concave.
    theory = lambda scale: scale * float(np.exp(-1 / (2 * WIDTH)))
    claims = [
        Claim(f"{name}: the factor of one layer", n["factors"][name], theory(scale), 0.02)
        for name, (scale, *_) in STACKS.items() if name.startswith("linear")
    ]  # fmt: skip
    residual = n["factors"]["h + tanh / depth, σ = 1"]
    return [*claims, Claim("with a residual connection", residual, 1, 0.02)]


LESSONS = (
    Lesson("forward-or-reverse", mode_numbers, draw_modes, mode_claims, clocked=True),
    Lesson("depth", depth_numbers, draw_depth, depth_claims),
)
