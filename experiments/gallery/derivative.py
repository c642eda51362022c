"""The derivative: what a slope is, how computers take it, and what it says of a weight."""

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from matplotlib.figure import Figure

import secondorder as so
from experiments.figures.style import styled
from experiments.gallery import networks
from experiments.gallery.colours import BLACK, BLUE, GREEN, GREY, ORANGE, PINK, RED, SKY
from experiments.gallery.lesson import Claim, Lesson, Numbers
from experiments.gallery.walk import fitted_power, walk

POINT = 0.5  # where the tangent of the secants' picture is taken
NUDGE = 0.02  # how far a weight is moved to see what the loss does


def hill(x):
    return jnp.sin(x) + x**2 / 8


def secant_numbers() -> Numbers:
    slope = jax.grad(hill)(POINT)
    steps = jnp.array([2.5, 1.5, 0.75, 0.25])
    small = jnp.geomspace(1e-4, 2.5, 60)
    secant = lambda h: (hill(POINT + h) - hill(POINT)) / h
    x = jnp.linspace(-0.6, 3.4, 300)
    return {
        "x": x,
        "y": hill(x),
        "at": float(hill(POINT)),
        "slope": float(slope),
        "steps": steps,
        "secants": secant(steps),
        "small": small,
        "errors": jnp.abs(secant(small) - slope),
        "bend": float(jax.grad(jax.grad(hill))(POINT)),
    }


@styled
def draw_secants(n: Numbers) -> Figure:
    figure = Figure(figsize=(12, 5.2), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(1.25, 1))
    left.plot(n["x"], n["y"], color=BLACK, linewidth=2.6, label="f(x) = sin x + x²/8")
    at = n["at"]
    for h, slope, colour in zip(n["steps"], n["secants"], (SKY, ORANGE, PINK, RED), strict=True):
        left.plot(n["x"], at + slope * (n["x"] - POINT), color=colour, linewidth=1.6)
        left.plot(POINT + h, at + slope * h, "o", color=colour, markersize=8)
        right.plot(h, abs(slope - n["slope"]), "o", color=colour, markersize=8, zorder=4)
        left.plot([], [], "o-", color=colour, label=f"secant, h = {h:g}: slope {slope:.3f}")
    tangent = at + n["slope"] * (n["x"] - POINT)
    left.plot(n["x"], tangent, "--", color=BLUE, linewidth=2.6)
    left.plot([], [], "--", color=BLUE, label=f"tangent, h → 0: slope {n['slope']:.3f}")
    left.plot(POINT, at, "o", color="white", markeredgecolor=BLACK, markersize=10, zorder=5)
    left.set(xlabel="x", ylabel="f(x)", ylim=(-0.9, 3.5), xlim=(-0.6, 3.4))
    left.set_title("The secant turns into the tangent")
    left.legend(loc="upper left")
    right.loglog(n["small"], n["errors"], color=GREY, label="slope of the secant − f′(x)", zorder=1)
    half = abs(n["bend"]) / 2 * n["small"]
    right.plot(n["small"], half, ":", color=BLACK, label="½ |f″(x)| h")
    right.set(xlabel="h, how far apart the two points are", ylabel="error of the slope")
    right.set_title("Ten times closer, ten times better")
    right.legend(loc="upper left")
    return figure


def secant_claims(n: Numbers) -> list[Claim]:
    near = n["small"] < 1e-2
    h, error = n["small"][near], n["errors"][near]
    return [
        Claim("the error falls with this power of h", fitted_power(h, error), 1, 0.01),
        Claim("error / h tends to ½ |f″|", float(error[0] / h[0]), abs(n["bend"]) / 2, 1e-3),
    ]


def wave(x):
    return jnp.exp(jnp.sin(3 * x)) / (1 + x**2)


def difference_numbers() -> Numbers:
    x, tiny = 0.7, 1e-200
    # With an imaginary step nothing is subtracted, so nothing cancels: a witness for all others.
    exact = float(jnp.imag(wave(x + 1j * tiny))) / tiny
    h = jnp.geomspace(1e-16, 0.3, 190)
    h = (x + h) - x  # the step that really lies between the two arguments
    h = h[h > 0]
    forward = (wave(x + h) - wave(x)) / h
    central = (wave(x + h) - wave(x - h)) / ((x + h) - (x - h))
    relative = lambda found: jnp.abs(found / exact - 1)
    return {
        "h": h,
        "forward": relative(forward),
        "central": relative(central),
        "automatic": float(relative(jax.grad(wave)(x))),
        "epsilon": float(jnp.finfo(float).eps),
    }


@styled
def draw_differences(n: Numbers) -> Figure:
    figure = Figure(figsize=(10.5, 6.2), layout="constrained")
    axes = figure.subplots()
    eps = n["epsilon"]
    floor = lambda error: np.maximum(error, eps / 4)
    axes.loglog(n["h"], floor(n["forward"]), color=ORANGE, label="forward: (f(x+h) − f(x)) / h")
    axes.loglog(n["h"], floor(n["central"]), color=BLUE, label="central: (f(x+h) − f(x−h)) / 2h")
    axes.axhline(
        max(n["automatic"], eps / 4),
        color=GREEN,
        linewidth=3,
        label="automatic differentiation: no h to choose",
    )
    for power, name, colour, height in ((1 / 2, "√ε", ORANGE, 0), (1 / 3, "∛ε", BLUE, 1)):
        axes.axvline(eps**power, color=colour, linestyle=":", linewidth=1.6)
        text = f"h = {name} = {eps**power:.1e}"
        place = (eps**power * 1.25, (1e2, 1e1)[height])
        axes.annotate(text, place, color=colour, fontsize=11.5)
    note = {"fontsize": 11.5, "color": "#444444"}
    axes.annotate("rounding: ε / h", (1.5e-13, 1e-2), **note)
    axes.annotate("h", (1e-4, 7e-4), **note)
    axes.annotate("h²", (1.2e-2, 1.5e-5), **note)
    axes.set(xlabel="step h", ylabel="relative error of the derivative", ylim=(eps / 12, 1e3))
    axes.set_title("A finite difference is torn between two errors")
    axes.legend(loc=(0.02, 0.09))
    return figure


def difference_claims(n: Numbers) -> list[Claim]:
    h, forward, central = (n[k] for k in ("h", "forward", "central"))
    eps = n["epsilon"]
    far, wide = (h > 1e-6) & (h < 1e-3), (h > 1e-3) & (h < 1e-2)
    best = lambda error: float(np.log10(np.sort(error[error > 0])[: error.size // 20].mean()))
    return [
        Claim("forward: its error falls with this power of h", fitted_power(h[far], forward[far]),
              1, 0.05),
        Claim("central: its error falls with this power of h", fitted_power(h[wide], central[wide]),
              2, 0.05),
        Claim("forward: log₁₀ of its least errors, near √ε", best(forward), np.log10(eps) / 2, 1),
        Claim("central: log₁₀ of its least errors, near ε^⅔", best(central), np.log10(eps) * 2 / 3,
              1),
        Claim("automatic differentiation: its error in units of ε", n["automatic"] / eps, 0, 4),
    ]  # fmt: skip


def sensitivity_numbers() -> Numbers:
    x = jnp.linspace(-2.0, 4.0, 40)[:, None]
    start = networks.layers([1, 4, 1], seed=3)
    flat, tree = ravel_pytree(start)
    objective = so.compose(so.squared_error(jnp.sin(x)), lambda p: networks.apply(p, x))
    loss = jax.jit(lambda w: objective(tree(w)))
    # On the way: at the minimum no weight would matter.
    flat = jnp.asarray(walk(so.gradient_descent(0.1), loss, flat, 3)[-1])
    params = tree(flat)
    slopes = jax.grad(loss)(flat)
    moved = jax.vmap(loss)(flat + NUDGE * jnp.eye(flat.size)) - loss(flat)
    order = np.argsort(-np.abs(slopes))
    shifts = jnp.linspace(-1.0, 1.0, 81)
    shown = [int(order[i]) for i in (0, len(order) // 2, -1)]
    curves = [jax.vmap(lambda t, i=i: loss(flat.at[i].add(t)))(shifts) for i in shown]
    layer = [(f"{kind}{k}", leaf.size) for k, l in enumerate(params, 1) for kind, leaf in l.items()]
    # Leaves come in the order of their names: biases before weights.
    layer = [pair for k in range(0, len(layer), 2) for pair in sorted(layer[k : k + 2])]
    names = [f"{name}[{j}]" for name, size in layer for j in range(size)]
    return {
        "loss": float(loss(flat)),
        "names": names,
        "slopes": slopes,
        "bends": jnp.diag(so.dense(so.hessian(loss, flat), flat)),
        "moved": moved,
        "shifts": shifts,
        "shown": shown,
        "curves": curves,
    }


@styled
def draw_sensitivity(n: Numbers) -> Figure:
    figure = Figure(figsize=(12.5, 5.4), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(1, 1.2))
    for i, curve, colour in zip(n["shown"], n["curves"], (RED, BLUE, GREEN), strict=True):
        slope = float(n["slopes"][i])
        left.plot(n["shifts"], curve, color=colour, label=f"{n['names'][i]}: slope {slope:+.3f}")
        left.plot(n["shifts"], n["loss"] + slope * n["shifts"], "--", color=colour, linewidth=1.3)
    left.plot(0, n["loss"], "o", color="white", markeredgecolor=BLACK, markersize=9, zorder=5)
    top = max(float(curve.max()) for curve in n["curves"])
    left.set(xlabel="change of the weight", ylabel="loss (mean squared error / 2)", ylim=(0, top))
    left.set_title("The loss as one weight moves, and its tangent")
    left.legend(loc="upper center")
    places = np.arange(len(n["names"]))
    right.bar(places, NUDGE * n["slopes"], color=SKY, label="slope × 0.02")
    right.plot(places, n["moved"], "D", color=BLACK, markersize=6, label="measured")
    right.axhline(0, color=BLACK, linewidth=0.8)
    right.set_xticks(places, n["names"], rotation=60)
    right.set(ylabel="change of the loss", xlabel="the weight that moves by +0.02")
    right.set_title("One gradient foretells every weight's effect")
    right.legend(loc="upper left")
    return figure


def sensitivity_claims(n: Numbers) -> list[Claim]:
    foretold = NUDGE * n["slopes"]
    curved = foretold + NUDGE**2 / 2 * n["bends"]
    moved = n["moved"]
    size = np.abs(moved).max()
    return [
        Claim("the slope's worst miss, relative to the greatest change of the loss",
              float(np.abs(foretold - moved).max() / size), 0, 0.1),
        Claim("the same with the second derivative in it, ½ f″ h²",
              float(np.abs(curved - moved).max() / size), 0, 0.005),
    ]  # fmt: skip


LESSONS = (
    Lesson("secant", secant_numbers, draw_secants, secant_claims),
    Lesson("finite-differences", difference_numbers, draw_differences, difference_claims),
    Lesson("sensitivity", sensitivity_numbers, draw_sensitivity, sensitivity_claims),
)
