"""Some of Moré, Garbow and Hillstrom's problems, each of which asks something else of a method.

Source: Moré, Garbow and Hillstrom (1981); `experiments/testset` holds all 35.
"""

import jax.numpy as jnp

import secondorder as so
from experiments.problem import Problem
from experiments.testset import MGH, TestProblem


def problem(published: TestProblem, title: str, why: str, steepest: float, slope: float) -> Problem:
    """One of them as a problem of the comparison: half its sum of squares from its standard start.

    Args:
      steepest: the largest curvature at the start, to a decade; a fixed step begins at its inverse.
      slope: the gradient norm that counts as zero: some 1e-12 of what it is at the start.
    """
    return Problem(
        name=f"mgh-{published.name}",
        title=f"{title} (Moré, Garbow and Hillstrom)",
        description=(
            f"Half the sum of squares of {published.m} residuals of {published.n} parameters, from "
            f"the published start, in float64; problem {published.number} of Moré, Garbow and "
            f"Hillstrom (1981). {why}"
        ),
        load=lambda: {},
        init=lambda key, data: jnp.asarray(published.start, float),
        objective=lambda batch: so.sum_of_squares(published.residual),
        targets=(1e-2, 1e-4, 1e-8),
        optimum=published.minima[0] / 2,
        grad_norm_target=slope,
        step_unit=1 / steepest,
        tuning_steps=1000,
        steps={"first-order": 3000, "quasi-newton": 300, "matrix-free": 200, "dense": 100},
    )


PUBLISHED = (
    problem(
        MGH["helical-valley"],
        "The helical valley",
        "A valley that winds around an axis; the residuals vanish at its end.",
        steepest=1e3,
        slope=1e-8,
    ),
    problem(
        MGH["powell-singular"],
        "Powell's singular function",
        "The Jacobian is singular at the solution, where Newton's method converges only linearly.",
        steepest=1e3,
        slope=1e-8,
    ),
    problem(
        MGH["wood"],
        "Wood's function",
        "Two coupled valleys, and a saddle on the way.",
        steepest=1e3,
        slope=1e-8,
    ),
    problem(
        MGH["brown-dennis"],
        "Brown and Dennis's function",
        "The residuals stay large at the solution: what Gauss-Newton leaves out of the Hessian is "
        "not small.",
        steepest=1e6,
        slope=1e-4,
    ),
    problem(
        MGH["osborne-1"],
        "Osborne's first function",
        "Two decays fitted to 33 measurements, whose rates and amplitudes nearly make up for one "
        "another.",
        steepest=1e4,
        slope=1e-9,
    ),
    problem(
        MGH["freudenstein-roth"],
        "Freudenstein and Roth's function",
        "Besides the minimum, where f is 0, there is one where it is 24.5, and from this start "
        "nearly everybody goes there: it counts as a failure.",
        steepest=1e3,
        slope=1e-9,
    ),
    problem(
        MGH["beale"],
        "Beale's function",
        "Far from the minimum the surface is flat, and the Hessian indefinite.",
        steepest=1e2,
        slope=1e-11,
    ),
    problem(
        MGH["bard"],
        "Bard's function",
        "A rational curve with small residuals; parameters may run off to infinity instead.",
        steepest=1e1,
        slope=1e-11,
    ),
    problem(
        MGH["kowalik-osborne"],
        "Kowalik and Osborne's function",
        "An enzyme's reaction, eleven measurements: the four parameters are poorly determined.",
        steepest=1e0,
        slope=1e-12,
    ),
    problem(
        MGH["box"],
        "Box's function",
        "Two decays; all points with equal rates and no amplitude solve it, too.",
        steepest=1e2,
        slope=1e-11,
    ),
    problem(
        MGH["biggs-exp6"],
        "Biggs's sixth function",
        "Three decays of which one is negative; a valley and other stationary points on the way.",
        steepest=1e1,
        slope=1e-11,
    ),
    problem(
        MGH["broyden-tridiagonal-10"],
        "Broyden's tridiagonal system",
        "Ten equations, each of three neighbours; well conditioned, and easy.",
        steepest=1e2,
        slope=1e-11,
    ),
)
