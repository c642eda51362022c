"""Newton-CG: Newton's steps by products, in a region that grows and shrinks with their success."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tolerances import assert_close, rounding

import secondorder as so


def run(tx, f, p, count):
    """Points and diagnostics of ``count`` updates."""

    @jax.jit
    def step(p, state):
        value, grad = jax.value_and_grad(f)(p)
        updates, state = tx.update(grad, state, p, value=value, grad=grad, value_fn=f)
        return p + updates, state, so.diagnostics(state)

    state, points, reports = tx.init(p), [p], []
    for _ in range(count):
        p, state, report = step(p, state)
        points.append(p)
        reports.append({key: value.item() for key, value in report.items()})
    return np.stack(points), reports


def rosenbrock(p):
    return jnp.sum(100 * (p[1:] - p[:-1] ** 2) ** 2 + (1 - p[:-1]) ** 2)


def test_no_step_is_longer_than_the_radius_and_none_goes_up(x64):
    points, reports = run(so.newton_cg(trust=0.2), rosenbrock, jnp.array([-1.2, 1.0, 0.5]), 60)
    values = [float(rosenbrock(p)) for p in points]
    assert values == sorted(values, reverse=True)
    radius = 0.2
    for report in reports:
        assert report["length"] <= radius * (1 + 1e-9)
        radius = report["scale"]
    np.testing.assert_allclose(points[-1], 1, atol=1e-6)
    assert not all(report["accepted"] for report in reports)


def test_the_radius_follows_the_gain(x64):
    _, reports = run(so.newton_cg(trust=0.2), rosenbrock, jnp.array([-1.2, 1.0, 0.5]), 40)
    radius, seen = 0.2, set()
    for report in reports:
        if report["gain"] < 0.25:
            # By the parabola through both values and the slope.
            low, high = 0.1 * report["length"], 0.25 * report["length"]
            assert low * (1 - rounding()) <= report["scale"] <= high * (1 + rounding())
            expected, case = report["scale"], "shrunk"
        elif report["gain"] > 0.75 and report["length"] > 0.99 * radius:
            expected, case = 2 * radius, "grown"
        else:
            expected, case = radius, "kept"
        np.testing.assert_allclose(report["scale"], expected, rtol=rounding())
        radius = report["scale"]
        seen.add(case)
    assert seen == {"shrunk", "grown", "kept"}


def test_near_a_minimum_it_converges_faster_than_any_line(x64):
    f = lambda p: jnp.sum(jnp.cosh(p) * jnp.geomspace(1, 100, 8)) + 0.5 * jnp.sum(p) ** 2
    points, _ = run(so.newton_cg(), f, jnp.linspace(0.3, 1.0, 8), 14)
    norms = np.array([np.linalg.norm(jax.grad(f)(p)) for p in points])
    norms = norms[norms > rounding(100, norm=norms[0])]
    ratios = norms[1:] / norms[:-1]
    assert len(norms) < 13 and ratios[-1] < 1e-2


def test_it_leaves_a_region_of_negative_curvature(x64):
    f = lambda p: p[0] ** 4 / 4 - p[0] ** 2 / 2 + p[1] ** 2
    points, reports = run(so.newton_cg(), f, jnp.array([0.05, 1.0]), 25)
    assert reports[0]["predicted"] < 0
    np.testing.assert_allclose(np.abs(points[-1]), [1, 0], atol=1e-6)


@pytest.mark.quick(1)
@pytest.mark.parametrize("unit", [1e-6, 1e6])
def test_a_common_unit_of_the_parameters_changes_nothing(x64, unit):
    start = jnp.array([-1.2, 1.0])
    points, _ = run(so.newton_cg(), rosenbrock, start, 20)
    rescaled, _ = run(so.newton_cg(), lambda q: rosenbrock(q / unit), start * unit, 20)
    # The Hessian is of condition 2500, and a step magnifies what the one before has rounded.
    assert_close(rescaled / unit, points, 2500**2)


def test_the_product_limit_holds(x64):
    _, reports = run(so.newton_cg(max_cg_steps=2), rosenbrock, jnp.linspace(-1.0, 1.0, 10), 10)
    assert max(report["products"] for report in reports) == 2
    assert {so.solvers.Stop.MAX_STEPS} & {report["stopped"] for report in reports}
