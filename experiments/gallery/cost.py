"""What a step costs as the dimension grows, and whether fewer steps are a bargain."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from matplotlib.figure import Figure

import secondorder as so
from experiments.benchmarks.timing import interleaved, race
from experiments.figures.style import styled
from experiments.gallery import networks
from experiments.gallery.colours import BLACK, BLUE, GREEN, GREY, ORANGE, PINK, RED, SKY
from experiments.gallery.lesson import Claim, Lesson, Numbers
from experiments.gallery.walk import fitted_power

EXAMPLES = 64
WIDTHS = (16, 48, 128, 256)
DENSE_WIDTHS = (16, 28, 48)  # of the methods that form a matrix of n × n


def _of_rows(solver: Any) -> Any:
    return so.scale_by_curvature(so.exact(so.ggn), solver, so.trust.fixed(1e-2))


METHODS = {
    "Newton, dense Hessian": (lambda _: so.newton(1.0), BLUE, "o"),
    "Gauss-Newton, parameters": (lambda _: _of_rows(so.solvers.direct()), RED, "X"),
    "Gauss-Newton, samples": (lambda _: _of_rows(so.solvers.sample_space()), ORANGE, "s"),
    "Newton-CG, 10 products": (lambda _: so.newton_cg(max_cg_steps=10), PINK, "*"),
    "K-FAC": (lambda example: so.kfac(1e-2, example=example, refresh_every=1), GREEN, "P"),
    "gradient descent": (lambda _: so.gradient_descent(1e-2), BLACK, "v"),
}
MATRICES = ("Newton, dense Hessian", "Gauss-Newton, parameters")


def step_numbers() -> Numbers:
    x = jax.random.normal(jax.random.key(0), (EXAMPLES, 4), jnp.float32)
    y = jnp.sin(x.sum(1, keepdims=True))

    def objective() -> so.Objective:
        model = lambda p, example: networks.apply(p, example)
        return so.per_example(so.squared_error(y), model, x)

    def program(build, params):
        optimizer = build(objective())

        def step(params, state):
            value_fn = objective()
            value, grad = jax.value_and_grad(value_fn)(params)
            given = {"value": value, "grad": grad, "value_fn": value_fn}
            updates, state = optimizer.update(grad, state, params, **given)
            return optax.apply_updates(params, updates), state

        return step, (params, optimizer.init(params))

    def float32_layers(width: int):
        layers = networks.layers([4, width, width, 1], seed=1)
        return jax.tree.map(lambda leaf: leaf.astype(jnp.float32), layers)

    sizes: dict[str, list[int]] = {name: [] for name in METHODS}
    programs = {}
    for name, (build, _, _) in METHODS.items():
        widths = DENSE_WIDTHS if name in MATRICES else WIDTHS
        for width in widths:
            params = float32_layers(width)
            sizes[name].append(sum(leaf.size for leaf in jax.tree.leaves(params)))
            programs[f"{name} {sizes[name][-1]}"] = program(build, params)
    times = race(programs, repetitions=5)
    seconds = {name: [times[f"{name} {n}"].seconds for n in ns] for name, ns in sizes.items()}
    powers = {name: fitted_power(sizes[name][-3:], seconds[name][-3:]) for name in METHODS}
    return {"sizes": sizes, "seconds": seconds, "powers": powers}


@styled
def draw_step(n: Numbers) -> Figure:
    figure = Figure(figsize=(11, 6.4), layout="constrained")
    axes = figure.subplots()
    for name, (_, colour, marker) in METHODS.items():
        label = f"{name}:  n^{n['powers'][name]:.1f}"
        axes.loglog(n["sizes"][name], 1e3 * np.array(n["seconds"][name]), color=colour,
                    marker=marker, mec="white", mew=0.6, label=label, markersize=8)  # fmt: skip
    axes.set(xlabel="weights n", ylabel="time of one step [milliseconds]")
    axes.set_title(f"A network with two hidden layers, {EXAMPLES} examples, float32")
    axes.legend(loc="upper left", title="fitted to the last three sizes", alignment="left")
    axes.set_ylim(top=40 * 1e3 * max(max(s) for s in n["seconds"].values()))
    return figure


def step_claims(n: Numbers) -> list[Claim]:
    largest = n["sizes"]["Newton, dense Hessian"][-1]
    same = n["sizes"]["gradient descent"].index(largest)
    ratio = n["seconds"]["Newton, dense Hessian"][-1] / n["seconds"]["gradient descent"][same]
    powers = n["powers"]
    return [
        Claim("power of dense Newton", powers["Newton, dense Hessian"], 2.5, 0.9),
        Claim("power of gradient descent, at most n", powers["gradient descent"], 0.6, 0.7),
        Claim("power of Gauss-Newton in the space of the samples, about n",
              powers["Gauss-Newton, samples"], 0.9, 0.6),
        Claim(f"log₁₀ of dense Newton over gradient descent at n = {largest}",
              float(np.log10(ratio)), 3.5, 1.5),
    ]  # fmt: skip


SIZE = 300
CONDITIONS = tuple(10.0**k for k in (0, 1, 2, 3, 4))
SOLVERS = {
    "gradient descent": (so.gradient_descent, BLACK, "v", "solid"),
    "L-BFGS": (optax.lbfgs, SKY, "D", (0, (8, 2))),
    "Newton-CG": (so.newton_cg, PINK, "*", "solid"),
    "Newton": (so.newton, BLUE, "o", "solid"),
}
TOLERANCE = 1e-6
MOST = 20_000


def solution_numbers() -> Numbers:
    turn, _ = jnp.linalg.qr(jax.random.normal(jax.random.key(0), (SIZE, SIZE)))
    center = jax.random.normal(jax.random.key(1), (SIZE,))

    def value(curvatures, p):
        """Convex, with these curvatures at its minimum, and gentler away from it."""
        return jnp.sum(curvatures * (jnp.sqrt(1 + (turn @ (p - center)) ** 2) - 1))

    def solve(build, curvatures):
        start = jnp.zeros(SIZE)
        fn = partial(value, curvatures)
        return so.minimize(fn, start, build(), tol=TOLERANCE, max_steps=MOST)

    steps: Numbers = {name: [] for name in SOLVERS}
    seconds: Numbers = {name: [] for name in SOLVERS}
    solved: Numbers = {name: [] for name in SOLVERS}
    programs = {name: jax.jit(partial(solve, build)) for name, (build, *_) in SOLVERS.items()}
    for condition in CONDITIONS:
        curvatures = jnp.geomspace(1.0, 1.0 / condition, SIZE)
        for name, program in programs.items():
            solution = program(curvatures)
            steps[name].append(int(solution.steps))
            solved[name].append(bool(solution.success))
        calls = {name: partial(program, curvatures) for name, program in programs.items()}
        for name, taken in interleaved(calls, 3).items():
            seconds[name].append(taken)
    lead = np.log(np.array(seconds["gradient descent"]) / np.array(seconds["Newton"]))
    crossing = float(np.exp(np.interp(0.0, lead, np.log(CONDITIONS))))
    return {"steps": steps, "seconds": seconds, "solved": solved, "crossing": crossing}


@styled
def draw_solution(n: Numbers) -> Figure:
    figure = Figure(figsize=(12.5, 5.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    for name, (_, colour, marker, dashes) in SOLVERS.items():
        look = {"color": colour, "marker": marker, "linestyle": dashes, "mec": "white", "ms": 9}
        left.loglog(CONDITIONS, n["steps"][name], label=name, **look)
        right.loglog(CONDITIONS, 1e3 * np.array(n["seconds"][name]), label=name, **look)
        for i, solved in enumerate(n["solved"][name]):
            if not solved:
                for axes, y in ((left, n["steps"]), (right, n["seconds"])):
                    scale = 1 if axes is left else 1e3
                    axes.plot(CONDITIONS[i], scale * y[name][i], "x", color=colour, ms=15, mew=3)
    left.set(ylabel="steps", title="Fewer steps ...")
    right.set(ylabel="time [milliseconds]", title="... and whether they were a bargain")
    for axes in (left, right):
        axes.set(xlabel="condition number κ")
        axes.axvspan(0.6, n["crossing"], color=GREY, alpha=0.1)
        axes.set_xlim(0.6, CONDITIONS[-1] * 1.6)
    left.legend(loc="upper left")
    return figure


def solution_claims(n: Numbers) -> list[Claim]:
    steps, seconds = n["steps"], n["seconds"]
    lead = np.log(np.array(seconds["gradient descent"]) / np.array(seconds["Newton"]))
    return [
        Claim("Newton's steps, worst conditioned over best, log₂",
              float(np.log2(steps["Newton"][-1] / steps["Newton"][0])), 0, 2),
        Claim("power of κ in gradient descent's steps", fitted_power(
            CONDITIONS[1:4], steps["gradient descent"][1:4]), 0.9, 0.4),
        Claim("the sign of who wins the clock at κ = 1: gradient descent", float(np.sign(lead[0])),
              -1, 0),
        Claim("the sign of who wins it at the largest κ: Newton", float(np.sign(lead[-1])), 1, 0),
    ]  # fmt: skip


LESSONS = (
    Lesson("cost-of-a-step", step_numbers, draw_step, step_claims, clocked=True),
    Lesson("time-to-solution", solution_numbers, draw_solution, solution_claims, clocked=True),
)
