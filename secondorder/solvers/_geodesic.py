"""Geodesic acceleration: a curved path along the step, with evenly shrinking residuals."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp

from secondorder import settings, tree
from secondorder.quadratic import Quadratic
from secondorder.solvers._base import Solver
from secondorder.step import Again, Path, Step

MILD = 0.75  # maximum length of the second term, relative to the step


@settings.checked()
def geodesic(solver: Solver, order: int = 2) -> Solver:
    """The path ``α d + ½ α² a + ⅙ α³ b + ...`` that starts along the step ``d`` of ``solver``.

    The step solves the damped ``R d = −r``. Each further term solves the same system for the next
    derivative of the model's outputs along the path, and so cancels it: along the path the
    residuals are ``(1 − α) r`` up to its order, for a nonlinear model too. Each term costs one
    derivative of the model along the path and one more right-hand side.

    A second term longer than ¾ of the step is left out, and so is a non-finite term. The step stays
    straight (``order`` 1 in the report) for losses other than sums of squares, for chunked
    objectives, and for models without a second derivative.

    Args:
      solver: a least-squares solver: ``qr()``, ``svd_region()``, ``hybrid_region()``,
        ``sample_space()``. Steps of other solvers stay straight.
      order: 1 for the straight step; 2 for the end of the path, ``d + ½ a``; 3 or more for a policy
        that searches along the path, such as ``trust.line_search()``.

    Example:
      >>> import secondorder as so
      >>> solver = so.solvers.geodesic(so.solvers.qr())
      >>> tx = so.scale_by_curvature(so.exact(so.ggn), solver, so.trust.damping(1e-3))

    Source: Transtrum and Sethna (2012), equations 9 and 15, for the second order.
    """
    if order == 1:
        return solver

    def solve(quadratic: Quadratic, factors: Any, memory: Any, scale: Any) -> tuple[Step, Any]:
        step, after = solver.solve(quadratic, factors, memory, scale)
        again = step.candidates.solve if isinstance(step.candidates, Again) else None
        if again is None or not quadratic.curvature.bends(order):
            return step, after
        along = quadratic.curvature.gauss_newton().derivative_along
        terms, report = (step.direction,), step.report
        for k in range(2, order + 1):
            x, more, paid = again(along(*terms))
            counts = {"iterations": report.iterations + more, "products": report.products + paid}
            report, size = report._replace(**counts), solver.measure(factors, memory, x)
            # A comparison with NaN is false, so a non-finite term is left out.
            sound = size <= MILD * step.length if k == 2 else jnp.isfinite(size)
            terms = *terms, tree.where(sound, x, tree.zeros_like(x))
        path = step._replace(candidates=Path(terms[1:]), report=report).reporting(order=order)
        return path.along(1.0) if order == 2 else path, after

    return solver._replace(solve=solve)
