"""Who is right: the digits of a returned point, and claims of success that are false.

A value f is right to d digits of a minimum f* where |f - f*| <= max(10^-d |f*|, 10^-2d). The
second is what decides at f* = 0: for a sum of squares it bounds the norm of the residuals by 10^-d.
It also decides above a tiny f*: an excess that does for a minimum of zero does for this one.

A claim of success is false where the point is neither right to a few digits nor stationary. It is
stationary where an independent solver, going on from it in float64, finds nothing better; or where
Newton's method on the gradient ends beside it at the same value, as it does at a saddle.
"""

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import jax
import numpy as np
from scipy import optimize

MOST = 16.0
NEWTON_STEPS = 30
BESIDE = 1e-2  # relative: how far from a point its stationary point may be
UNCLAIMED, RIGHT, ELSEWHERE, FALSE = "no claim", "right", "elsewhere", "FALSE"

Value = Callable[[np.ndarray], float]


class Precision(NamedTuple):
    """What is asked in a floating-point format.

    Attributes:
      name: of the dtype.
      digits: a problem is solved from here on.
      claimed: a claim of success is right from here on.
      tolerance: every solver's.
    """

    name: str
    digits: int
    claimed: int
    tolerance: float


FLOAT64 = Precision("float64", digits=6, claimed=3, tolerance=1e-8)
FLOAT32 = Precision("float32", digits=4, claimed=2, tolerance=1e-4)


def digits(value: float, minimum: float) -> float:
    """How many digits of a minimum a value has."""
    if not np.isfinite(value):
        return 0.0
    excess = abs(value - minimum)
    if excess == 0:
        return MOST
    relative = np.log10(abs(minimum) / excess) if minimum else 0.0
    return float(np.clip(max(relative, -np.log10(excess) / 2), 0, MOST))


def best_digits(value: float, minima: Iterable[float]) -> float:
    """Those of the nearest minimum."""
    return max(digits(value, minimum) for minimum in minima)


def verdict(
    claimed: bool,
    value: float,
    minima: Iterable[float],
    polished: Callable[[], float],
    settled: Callable[[], float],
    precision: Precision,
) -> str:
    """What a claim of success is worth; see ``polish_residual`` and ``settle``."""
    if not claimed:
        return UNCLAIMED
    if best_digits(value, minima) >= precision.claimed:
        return RIGHT
    if not np.isfinite(value):
        return FALSE
    better = polished()
    if better >= value or digits(value, better) >= precision.claimed:
        return ELSEWHERE
    return ELSEWHERE if digits(value, settled()) >= precision.claimed else FALSE


def settle(function: Callable) -> Value:
    """The value at the stationary point beside a point; NaN where Newton's method finds none."""
    gradient, hessian = jax.jit(jax.grad(function)), jax.jit(jax.hessian(function))

    def settled(params: np.ndarray) -> float:
        x = params
        for _ in range(NEWTON_STEPS):
            try:
                step = np.linalg.solve(np.asarray(hessian(x)), np.asarray(gradient(x)))
            except np.linalg.LinAlgError:
                return np.nan
            x = x - step
            if not np.linalg.norm(x - params) <= BESIDE * (1 + np.linalg.norm(params)):
                return np.nan
            if np.linalg.norm(step) <= 1e-10 * np.linalg.norm(x):
                return float(function(x))
        return np.nan

    return settled


def polish_residual(residual: Callable) -> Value:
    """The sum of squares that SciPy's least squares reach from a point."""
    r, jacobian = jax.jit(residual), jax.jit(jax.jacfwd(residual))
    slopes: Any = lambda x: np.asarray(jacobian(x))

    def polished(params: np.ndarray) -> float:
        found = [np.inf]
        for method in ("lm", "trf"):
            try:
                with np.errstate(all="ignore"):
                    end = optimize.least_squares(
                        lambda x: np.asarray(r(x)),
                        params,
                        jac=slopes,
                        method=method,
                        x_scale="jac",
                        ftol=1e-15,
                        xtol=1e-15,
                        gtol=1e-15,
                        max_nfev=2000,
                    )
            except ValueError:  # a residual or Jacobian that is not finite
                continue
            found.append(2 * end.cost)
        return float(np.nanmin(found))

    return polished


def polish_function(function: Callable) -> Value:
    """The value that SciPy's trust region, then its BFGS reach from a point."""
    both, hessian = jax.jit(jax.value_and_grad(function)), jax.jit(jax.hessian(function))

    def polished(params: np.ndarray) -> float:
        value_and_grad = lambda x: tuple(map(np.asarray, both(x)))
        found = [np.inf]
        for method, second in (("trust-exact", lambda x: np.asarray(hessian(x))), ("BFGS", None)):
            try:
                end = optimize.minimize(
                    value_and_grad, params, jac=True, hess=second, method=method, tol=1e-15
                )
            except (ValueError, np.linalg.LinAlgError):
                continue
            found.append(float(end.fun))
        return float(np.nanmin(found))

    return polished
