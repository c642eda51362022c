"""Newton's method in one dimension: roots, minima, and how fast it gets there."""

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure

import secondorder as so
from experiments.figures.style import styled
from experiments.gallery.colours import BLACK, BLUE, GREY, ORANGE, RED
from experiments.gallery.lesson import Claim, Lesson, Numbers
from experiments.gallery.walk import fitted_power, walk


def cubic(x):
    """The equation that Newton solved in print."""
    return x**3 - 2 * x - 5


def dip(p):
    """Steep on the left, gentle on the right, one minimum."""
    return jnp.exp(-p) + 0.5 * p + 0.02 * p**4


def one_dimension_numbers() -> Numbers:
    roots = [jnp.array(1.2)]
    for _ in range(9):
        x = roots[-1]
        roots.append(x - cubic(x) / jax.grad(cubic)(x))
    value = lambda p: dip(p[0])
    minima = walk(so.newton(learning_rate=1.0), value, [-1.6], 8)[:, 0]
    return {
        "roots": jnp.stack(roots),
        "heights": cubic(jnp.stack(roots)),
        "true": float(np.roots([1, 0, -2, -5]).real.max()),
        "x": jnp.linspace(0.7, 3.7, 300),
        "y": cubic(jnp.linspace(0.7, 3.7, 300)),
        "minima": minima,
        "at": jax.vmap(dip)(jnp.asarray(minima)),
        "slopes": jax.vmap(jax.grad(dip))(jnp.asarray(minima)),
        "bends": jax.vmap(jax.grad(jax.grad(dip)))(jnp.asarray(minima)),
        "u": jnp.linspace(-2.1, 2.4, 300),
        "v": dip(jnp.linspace(-2.1, 2.4, 300)),
    }


@styled
def draw_one_dimension(n: Numbers) -> Figure:
    figure = Figure(figsize=(12.5, 5.4), layout="constrained")
    left, right = figure.subplots(1, 2)
    left.plot(n["x"], n["y"], color=BLACK, label="f(x) = x³ − 2x − 5")
    left.axhline(0, color=GREY, linewidth=1)
    for i, colour in enumerate((RED, ORANGE, BLUE)):
        x, nxt, height = n["roots"][i], n["roots"][i + 1], n["heights"][i]
        left.plot([x, x], [0, height], ":", color=colour, linewidth=1.6)
        left.plot([x, nxt], [height, 0], color=colour, label=f"tangent at x = {x:.3f}")
        left.plot(x, height, "o", color=colour, markersize=8, zorder=4)
    left.plot(n["true"], 0, "*", color="white", mec=BLACK, ms=16, zorder=5)
    left.set(xlabel="x", ylabel="f(x)", ylim=(-8, 42), title="A root: follow the tangent to zero")
    left.legend(loc="upper left")
    right.plot(n["u"], n["v"], color=BLACK, label="f(x) = e⁻ˣ + x/2 + x⁴/50")
    for i, colour in enumerate((RED, ORANGE, BLUE)):
        x = n["minima"][i]
        d = n["u"] - x
        model = n["at"][i] + n["slopes"][i] * d + n["bends"][i] / 2 * d**2
        right.plot(n["u"], model, "--", color=colour, label=f"parabola at x = {x:.3f}", lw=1.7)
        right.plot(x, n["at"][i], "o", color=colour, markersize=8, zorder=4)
        least = n["minima"][i + 1]
        bottom = model[np.argmin(np.abs(n["u"] - least))]
        right.plot(least, bottom, "v", color=colour, markersize=8, zorder=4)
    right.plot(n["minima"][-1], n["at"][-1], "*", color="white", mec=BLACK, ms=16, zorder=5)
    right.set(xlabel="x", ylabel="f(x)", ylim=(0, 10.5))
    right.set_title("A minimum: jump to the parabola's lowest point")
    right.legend(loc="upper right")
    return figure


def one_dimension_claims(n: Numbers) -> list[Claim]:
    return [
        Claim("the root, against the eigenvalues of the companion matrix", float(n["roots"][-1]),
              n["true"], 1e-12),
        Claim("the slope where the parabolas end", float(n["slopes"][-1]), 0, 1e-12),
    ]  # fmt: skip


def speed_numbers() -> Numbers:
    value = lambda p: dip(p[0])
    start = [-0.9]
    best = float(so.minimize(value, jnp.array(start), so.newton(), tol=1e-15).params[0])
    bend = float(jax.grad(jax.grad(dip))(best))
    runs = {
        "gradient descent": walk(so.gradient_descent(0.5 / bend), value, start, 40),
        "BFGS": walk(so.bfgs(learning_rate=1.0), value, start, 12),
        "Newton": walk(so.newton(learning_rate=1.0), value, start, 7),
    }
    errors = {name: np.abs(path[:, 0] - best) for name, path in runs.items()}
    # Only what is above the rounding of the minimum itself.
    errors = {name: e[: int(np.argmax(np.append(e, 0.0) < 1e-14))] for name, e in errors.items()}
    third = float(jax.grad(jax.grad(jax.grad(dip)))(best))
    orders = {name: fitted_power(e[-4:-1], e[-3:]) for name, e in errors.items()}
    return {
        "errors": errors,
        "orders": orders,
        "constant": float(errors["Newton"][-1] / errors["Newton"][-2] ** 2),
        "theory": abs(third / (2 * bend)),
    }


SPEED_LOOKS = {"gradient descent": (BLACK, "v"), "BFGS": (ORANGE, "s"), "Newton": (BLUE, "o")}


@styled
def draw_speed(n: Numbers) -> Figure:
    figure = Figure(figsize=(13, 5.2), layout="constrained")
    left, middle, right = figure.subplots(1, 3)
    for name, (colour, marker) in SPEED_LOOKS.items():
        error = n["errors"][name]
        look = {"color": colour, "marker": marker, "mec": "white", "mew": 0.6}
        left.semilogy(error, label=name, **look)
        middle.loglog(error[:-1], error[1:], label=f"{name}: slope {n['orders'][name]:.2f}", **look)
        right.semilogy(np.flatnonzero(error < 0.9), -np.log10(error[error < 0.9]), label=name,
                       base=2, **look)  # fmt: skip
    left.set(
        xlabel="step", ylabel="error |xₖ − x*|", title="Error against steps", ylim=(1e-15, 1e3)
    )
    left.legend(loc="upper right")
    middle.set(
        xlabel="error before the step", ylabel="error after it", title="Its order is a slope"
    )
    middle.legend(loc="upper left")
    middle.set_ylim(top=1e4)
    right.set(
        xlabel="step", ylabel="correct digits, −log₁₀ error", title="Doubly log: a straight line"
    )
    right.set_yticks([1, 2, 4, 8, 16], ["1", "2", "4", "8", "16"])
    right.set_xlim(0, 14)
    right.legend(loc="lower right")
    return figure


def speed_claims(n: Numbers) -> list[Claim]:
    return [
        Claim("order of gradient descent", n["orders"]["gradient descent"], 1, 0.01),
        Claim("order of BFGS in one dimension, the golden ratio", n["orders"]["BFGS"],
              (1 + 5**0.5) / 2, 0.15),
        Claim("order of Newton", n["orders"]["Newton"], 2, 0.1),
        Claim("Newton: error over the last error squared, |f‴ / 2f″|", n["constant"], n["theory"],
              0.1 * n["theory"]),
    ]  # fmt: skip


LESSONS = (
    Lesson("one-dimension", one_dimension_numbers, draw_one_dimension, one_dimension_claims),
    Lesson("speed", speed_numbers, draw_speed, speed_claims),
)
