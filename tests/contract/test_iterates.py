"""Every method takes the steps that are written down in ``iterates.json``, in float64.

It guards a change of the code that is to change no step. A change that is to writes the data anew,
and whoever made it looks at the differences:

    WRITE_ITERATES=1 python -m pytest -m slow tests/contract/test_iterates.py
"""

import json
import os
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from contract.problems import batch, logistic, logistic_start, valley
from contract.steps import training_step
from contract.table import METHODS
from tolerances import rounding

import secondorder as so

pytestmark = [pytest.mark.usefixtures("x64"), pytest.mark.slow]

FILE = Path(__file__).with_name("iterates.json")
LOOKS = (1, 2, 3, 5, 8)  # the steps that are written down
SOLVES = 40  # steps of a solve at most
TIMES = np.arange(6.0)
SEEN = 3 * np.exp(-0.7 * TIMES) + 0.05 * np.cos(TIMES)


def decay(p) -> jax.Array:
    """The residuals of an exponential."""
    return p[0] * jnp.exp(-p[1] * TIMES) - SEEN


PROBLEMS = {
    "valley": (lambda: valley((10.0, 1.0)), lambda: jnp.array([-1.2, 1.0])),
    "logistic": (lambda: logistic(batch("float64")), lambda: logistic_start("float64")),
}


# On two parameters the third iteration of CG is rounding, and so is the choice among its iterates.
BY_CHANCE = {
    ("valley", "hessian_free_preconditioned_by_layers"),
    ("valley", "hessian_free_preconditioned_by_a_sketch"),
}


def combined(curvature, solver, trust=so.trust.damping, scale=1e-3):
    return lambda: so.scale_by_curvature(so.exact(curvature), solver, trust(scale))


PARTS = {
    "eigen": combined(so.hessian, so.solvers.eigen()),
    "gltr": combined(so.hessian, so.solvers.gltr(), so.trust.radius, 10.0),
    "krylov_cubic": combined(so.hessian, so.solvers.krylov_cubic(), so.trust.cubic, 1.0),
    "qr": combined(so.ggn, so.solvers.geodesic(so.solvers.qr())),
    "svd": combined(so.ggn, so.solvers.svd()),
    "sample_space": combined(so.ggn, so.solvers.geodesic(so.solvers.sample_space(momentum=0.5))),
    "sketched_cg": combined(so.ggn, so.solvers.cg(preconditioner=so.solvers.nystrom(2))),
    "prox_linear": combined(so.ggn, so.solvers.prox_linear()),
    "momentum": combined(so.ggn, so.solvers.momentum(so.solvers.cg())),
    "grafted": combined(so.ggn, so.solvers.grafted(so.solvers.cg(), optax.scale_by_rss(), 0.5)),
    "optimal_scaling": combined(so.ggn, so.solvers.optimal_scaling(so.solvers.cg())),
}
every_row = pytest.mark.parametrize("name", [*METHODS, *PARTS])


def method(name, objective):
    if name in PARTS:
        return PARTS[name]()
    shown = {"example": lambda p: objective} if "example" in METHODS[name].options else {}
    return METHODS[name].make(**shown)


def trained(name, problem) -> dict:
    """The parameters, values and rejections along a loop as Optax's users write it."""
    objective, start = PROBLEMS[problem][0](), PROBLEMS[problem][1]()
    tx = method(name, objective)
    step = training_step(tx, lambda data: objective)

    @jax.jit
    def run(params):
        def body(carry, _):
            outcome = step(*carry, None)
            rejected = so.diagnostics(outcome.state)["rejections"]
            seen = outcome.params, outcome.value, rejected
            return (outcome.params, outcome.state), seen

        return jax.lax.scan(body, (params, tx.init(params)), None, length=max(LOOKS))[1]

    params, values, rejections = jax.tree.map(np.asarray, run(start))
    at = np.array(LOOKS) - 1
    seen = np.concatenate([np.reshape(x, (len(x), -1)) for x in jax.tree.leaves(params)], axis=1)
    return {
        "params": seen[at].tolist(),
        "values": values[at].tolist(),
        "rejections": rejections[at].tolist(),
    }


def solved(name) -> dict:
    """The end of a least-squares fit and what it took."""
    tx = method(name, so.sum_of_squares(decay))
    solve = lambda p: so.least_squares(decay, p, tx, max_steps=SOLVES)
    found = jax.jit(solve)(jnp.array([5.0, 3.0]))
    return {
        "params": found.params.tolist(),
        "value": found.value.item(),
        "status": found.status.item(),
        "steps": found.steps.item(),
        "evaluations": [count.item() for count in found.evaluations],
        "rejections": so.diagnostics(found.state)["rejections"].item(),
    }


def known(name, problem, found: dict) -> dict:
    """What is written down; or what was found, written down now."""
    data = json.loads(FILE.read_text()) if FILE.exists() else {}
    if "WRITE_ITERATES" in os.environ:
        data.setdefault(name, {})[problem] = found
        ordered = {
            row: dict(sorted(data[row].items())) for row in [*METHODS, *PARTS] if row in data
        }
        lines = [
            f'"{row}": {{\n'
            + ",\n".join(f'  "{key}": {json.dumps(value)}' for key, value in parts.items())
            + "\n}"
            for row, parts in ordered.items()
        ]
        FILE.write_text("{\n" + ",\n".join(lines) + "\n}\n")
    assert name in data, f"no iterates of {name} are written down: see the head of this file"
    return data[name][problem]


def assert_near(found, expected, condition):
    size = np.max(np.abs(expected))
    np.testing.assert_allclose(found, expected, rtol=0, atol=rounding(condition, max(size, 1e-3)))


@every_row
@pytest.mark.parametrize("problem", list(PROBLEMS))
def test_its_steps_are_those_written_down(name, problem):
    found = trained(name, problem)
    expected = known(name, problem, found)
    if (problem, name) in BY_CHANCE:
        assert found["values"][-1] < 0.5 * found["values"][0]
        return
    assert found["rejections"] == expected["rejections"]
    for place, count in enumerate(LOOKS):
        # Each step multiplies the roundings of those before by the condition of its system.
        condition = 1e3 if count <= 2 else 1e8
        for kind in ("params", "values"):
            assert_near(found[kind][place], expected[kind][place], condition)


@every_row
def test_it_solves_a_fit_as_written_down(name):
    found = solved(name)
    expected = known(name, "decay", found)
    assert found["status"] == expected["status"]
    assert abs(found["steps"] - expected["steps"]) <= 1
    paid = np.array(found["evaluations"]), np.array(expected["evaluations"])
    assert np.all(np.abs(paid[0] - paid[1]) <= 2 + 0.1 * paid[1])
    if expected["steps"] < SOLVES:
        assert_near(found["params"], expected["params"], 1e8)
        assert_near(found["value"], expected["value"], 1e8)
