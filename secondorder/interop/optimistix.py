"""Solvers of Optimistix from the library's methods, with the convergence test of ``so.minimize``.

Optimistix's own wrapper of Optax stops at a small update, so a rejected step ends it. These solvers
stop like ``so.minimize``, at a point with a small gradient, and report a status. The test takes an
iteration of its own, so Optimistix's ``max_steps`` is the one of :func:`secondorder.minimize` plus
one. The derivative is Optimistix's ``ImplicitAdjoint``; its ``RecursiveCheckpointAdjoint`` cannot
differentiate through these steps. An auxiliary output costs one more evaluation per iteration.
"""

from __future__ import annotations

import abc
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
import optimistix as optx

from secondorder import losses, tree
from secondorder.objectives._base import AnyObjective, Plain
from secondorder.objectives._models import Opened
from secondorder.objectives._objective import Objective
from secondorder.operators._modes import derivable
from secondorder.optimize._ends import begin
from secondorder.optimize._loop import once
from secondorder.optimize._records import Loop, Problem, Status
from secondorder.state import settled


class _Steps(optx.AbstractIterativeSolver):
    """Base class of both solvers; ``_objective`` builds the objective."""

    optimizer: optax.GradientTransformation
    tol: float | None = None

    @property
    def rtol(self) -> float:  # of no step: what Optimistix measures roots and fixed points by
        return _root_eps(float) if self.tol is None else self.tol

    @property
    def atol(self) -> float:
        return self.rtol

    @property
    def norm(self) -> Callable:
        return tree.norm

    @abc.abstractmethod
    def _objective(self, fn: Callable, y: Any, args: Any) -> AnyObjective: ...

    def _problem(self, fn: Callable, y: Any, args: Any, options: Any) -> Problem:
        if options:
            raise ValueError(
                f"A solver of secondorder reads no options, but got {sorted(options)}. Leave them "
                "out; bounds are an argument of so.minimize and so.least_squares."
            )
        return Problem(
            fn=self._objective(fn, y, args),
            optimizer=optax.with_extra_args_support(self.optimizer),
            tol=_root_eps(tree.dtype(y)) if self.tol is None else self.tol,
            max_steps=jnp.iinfo(jnp.int32).max,  # Optimistix counts them
        )

    def init(self, fn, y, args, options, f_struct, aux_struct, tags) -> Loop:
        del f_struct, aux_struct, tags
        tree.check_real(y, "y0")
        return begin(self._problem(fn, y, args, options), jax.tree.map(settled, y), history=0)

    def step(self, fn, y, args, options, state: Loop, tags):
        del tags
        loop = once(self._problem(fn, y, args, options), state)
        return loop.params, loop, fn(y, args)[1]

    def terminate(self, fn, y, args, options, state: Loop, tags):
        del fn, y, args, options, tags
        results, status = optx.RESULTS, state.status
        is_any = lambda *names: jnp.isin(status, jnp.asarray([name.value for name in names]))
        failure = results.where(
            is_any(Status.NONFINITE), results.nonfinite, results.nonlinear_divergence
        )
        sound = is_any(Status.RUNNING, Status.CONVERGED)
        return ~is_any(Status.RUNNING), results.where(sound, results.successful, failure)

    def postprocess(self, fn, y, aux, args, options, state: Loop, tags, result):
        del aux, tags, result
        # If Optimistix's limit ended the loop, the last point is not tested yet.
        spent = self._problem(fn, y, args, options)._replace(max_steps=state.steps)
        unseen = state.status == Status.RUNNING.value
        end = jax.lax.cond(unseen, lambda loop: once(spent, loop), lambda loop: loop, state)
        known = {"status": end.status, "steps": end.steps, "grad_norm": end.grad_norm}
        return end.params, fn(end.params, args)[1], known


class Minimiser(_Steps, optx.AbstractMinimiser):
    """An optimizer for ``optimistix.minimise``.

    Optimistix traces the function as a whole, without a split into loss and model, so Hessian and
    gradient methods work, and Gauss-Newton methods raise an error.

    Attributes:
      optimizer: any Optax transformation.
      tol: tolerance of the test of :func:`secondorder.minimize`; ``None`` takes ``√ε``.

    ``solution.stats`` holds the ``status`` (:class:`secondorder.Status`), ``steps`` and
    ``grad_norm``. A failed solve has the result ``optimistix.RESULTS.nonfinite`` or
    ``nonlinear_divergence``.

    Example:
      >>> import jax.numpy as jnp, optimistix as optx, secondorder as so
      >>> from secondorder.interop.optimistix import Minimiser
      >>> solver = Minimiser(so.trust_region_newton())
      >>> f = lambda y, args: jnp.sum((y - args) ** 2)
      >>> optx.minimise(f, solver, jnp.zeros(2), args=3.0).value.tolist()
      [3.0, 3.0]
    """

    def _objective(self, fn: Callable, y: Any, args: Any) -> AnyObjective:
        return Plain(derivable(lambda y: fn(y, args)[0], y))


class LeastSquaresSolver(_Steps, optx.AbstractLeastSquaresSolver):
    """An optimizer for ``optimistix.least_squares``, ``root_find`` and ``fixed_point``: any method.

    Attributes:
      optimizer, tol: see :class:`Minimiser`.

    Example:
      >>> import jax.numpy as jnp, optimistix as optx, secondorder as so
      >>> from secondorder.interop.optimistix import LeastSquaresSolver
      >>> rosenbrock = lambda y, args: jnp.stack([10 * (y[1] - y[0] ** 2), 1 - y[0]])
      >>> solver = LeastSquaresSolver(so.levenberg_marquardt())
      >>> solution = optx.least_squares(rosenbrock, solver, jnp.array([-1.2, 1.0]))
      >>> solution.value.round(3).tolist()
      [1.0, 1.0]
    """

    def _objective(self, fn: Callable, y: Any, args: Any) -> AnyObjective:
        model = Opened(derivable(lambda y: tree.parts(fn(y, args)[0]), y), ())
        return Objective(losses.half_sum_of_squares(), model)


def _root_eps(dtype: Any) -> float:
    return float(jnp.finfo(jnp.result_type(dtype)).eps) ** 0.5
