"""SciPy's solvers: on the host, given compiled functions and derivatives."""

import time
import warnings
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from scipy import optimize

from experiments.benchmarks.judge import Precision
from experiments.benchmarks.programs import STEPS, Ended, Prepare, Program


def least_squares(method: str) -> Prepare:
    """``lm`` or ``trf``, both scaled by the columns of the Jacobian."""

    def prepare(residual: Callable, precision: Precision, x: Any, *extra: Any) -> Program:
        (r, jacobian), seconds = _compiled((residual, jax.jacfwd(residual)), x, *extra)
        dtype, tolerance = np.dtype(precision.name), precision.tolerance

        def run(x: Any, *extra: Any) -> Any:
            slopes: Any = lambda z: np.asarray(jacobian(z.astype(dtype), *extra), float)
            return optimize.least_squares(
                lambda z: np.asarray(r(z.astype(dtype), *extra), float),
                np.asarray(x, float),
                jac=slopes,
                method=method,
                x_scale="jac",
                ftol=tolerance,
                xtol=tolerance,
                gtol=tolerance,
                max_nfev=STEPS,
            )

        def read(end: Any) -> Ended:
            cost = end.nfev + end.njev * end.x.size
            return Ended(end.x, end.success, f"status {end.status}", end.nfev, cost)

        return Program(_guarded(run), _read(read), seconds)

    return prepare


def minimize(method: str) -> Prepare:
    """``BFGS`` or ``trust-exact``; the gradient comes with the value."""

    def prepare(function: Callable, precision: Precision, x: Any, *extra: Any) -> Program:
        exact = method.startswith("trust")
        wanted = (jax.value_and_grad(function), jax.hessian(function))
        (both, *hessian), seconds = _compiled(wanted[: 1 + exact], x, *extra)
        dtype = np.dtype(precision.name)
        options = {"gtol": precision.tolerance, "maxiter": STEPS}

        def run(x: Any, *extra: Any) -> Any:
            def value_and_grad(z):
                value, grad = both(z.astype(dtype), *extra)
                return float(value), np.asarray(grad, float)

            return optimize.minimize(
                value_and_grad,
                np.asarray(x, float),
                jac=True,
                hess=(lambda z: np.asarray(hessian[0](z.astype(dtype), *extra), float))
                if exact
                else None,
                method=method,
                options=options,
            )

        def read(end: Any) -> Ended:
            cost = end.nfev + 2.0 * end.x.size * end.get("nhev", 0)
            return Ended(end.x, end.success, f"status {end.status}", end.nit, cost)

        return Program(_guarded(run), _read(read), seconds)

    return prepare


def _compiled(functions: tuple, *inputs: Any) -> tuple[list, float]:
    begin = time.perf_counter()
    programs = [jax.jit(function).lower(*inputs).compile() for function in functions]
    return programs, time.perf_counter() - begin


def _guarded(run: Callable) -> Callable:
    """SciPy raises where a value is not finite; here that is a failure like any other."""

    def guarded(x: Any, *extra: Any) -> Any:
        try:
            with warnings.catch_warnings(), np.errstate(all="ignore"):
                warnings.simplefilter("ignore")
                return run(x, *extra)
        except (ValueError, np.linalg.LinAlgError) as error:
            return Ended(np.asarray(x, float), False, f"{type(error).__name__}", 0, 0.0)

    return guarded


def _read(read: Callable) -> Callable[[Any], Ended]:
    def reading(end: Any) -> Ended:
        if isinstance(end, Ended):
            return end
        params, claimed, status, steps, cost = read(end)
        return Ended(np.asarray(params, float), bool(claimed), status, int(steps), float(cost))

    return reading
