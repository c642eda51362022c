"""Geodesic acceleration: the path that a step begins, along which residuals shrink evenly."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp

from secondorder import settings, tree
from secondorder.quadratic import Quadratic
from secondorder.solvers._base import Solver
from secondorder.step import Again, Path, Step

MILD = 0.75  # the longest second term, in lengths of the step, at which both are trusted


@settings.checked()
def geodesic(solver: Solver, order: int = 2) -> Solver:
    """``solver`` with the path ``α d + ½ α² a + ⅙ α³ b + ...`` that its step ``d`` begins.

    The step solves ``R d = −r`` in the damped sense. Each further term solves the same system for
    the next derivative of the model's outputs along the path so far, and so cancels it: residuals
    are ``(1 − α) r`` to the order of the path, however the model bends. Each term costs one
    derivative of the model along the path and one more right-hand side.

    A second term longer than three quarters of the step, and a term that is not finite, are left
    out. Losses other than sums of squares, chunked objectives, and models that can be
    differentiated once keep their straight step (``order`` 1 in the report).

    Args:
      solver: one of the rows: ``qr()``, ``svd_region()``, ``hybrid_region()``, ``sample_space()``.
        Steps of any other solver stay straight.
      order: 1 for the straight step; 2 for the end of the path ``d + ½ a``; 3 and more for a policy
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
            # A comparison with NaN is false, so a term that is not finite is left out.
            sound = size <= MILD * step.length if k == 2 else jnp.isfinite(size)
            terms = *terms, tree.where(sound, x, tree.zeros_like(x))
        path = step._replace(candidates=Path(terms[1:]), report=report).reporting(order=order)
        return path.along(1.0) if order == 2 else path, after

    return solver._replace(solve=solve)
