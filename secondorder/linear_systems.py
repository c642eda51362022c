"""``solve``: linear systems with an operator of curvature."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from secondorder import settings, tree
from secondorder.linalg import _lapack as lapack
from secondorder.operators._base import Operator
from secondorder.operators._dense import ravel, unravel
from secondorder.quadratic import Quadratic
from secondorder.solvers import _conjugate_gradients as conjugate_gradients
from secondorder.solvers import _minres as minres
from secondorder.solvers._preconditioners import Inverse, Preconditioner, as_preconditioner
from secondorder.step import Reason
from secondorder.tree import Params

DENSE_LIMIT = 200  # largest dimension whose matrix is formed by default
MAX_STEPS = 10_000  # by default, and at most ten times the dimension
METHODS = ("dense", "cg", "minres")
HIGHEST = jax.lax.Precision.HIGHEST


class LinearStatus(Reason):
    """Reason for the end of :func:`solve`; an integer under ``jit``. Only ``SOLVED`` is a success.

    Example:
      >>> import secondorder as so
      >>> so.LinearStatus(0).name, so.LinearStatus.SOLVED.sentence
      ('SOLVED', 'The residual is within the tolerance.')
    """

    SOLVED = 0, "The residual is within the tolerance."
    MAX_STEPS = 1, "The step limit was reached before the residual was within the tolerance."
    LIMIT_OF_PRECISION = (
        2,
        "Rounding keeps the residual above the tolerance; take a larger one, damping, or float64.",
    )
    SINGULAR = (
        3,
        "The matrix is singular, or nearly, and no solution with a residual within the tolerance "
        "was found; take damping.",
    )
    INDEFINITE = (
        4,
        "Matrix or preconditioner is not positive definite; for the matrix take method='minres'.",
    )
    NONFINITE = 5, "The operator or the right-hand side held NaN or infinity; the solution is zero."


class LinearSolution(NamedTuple):
    """Result of :func:`solve`.

    Attributes:
      solution: ``x``, in the shapes and dtypes of the right-hand side.
      residual_norm: ``‖b − (A + λI) x‖`` as it is, not as the iteration estimates it; infinity for
        a system with NaN.
      iterations: number of iterations; 1 for the dense method.
      products: number of products with ``A``; the dense method counts n for the matrix and 2.
      status: a :class:`LinearStatus`, as an integer array.

    Example:
      >>> import jax.numpy as jnp, secondorder as so
      >>> found = so.solve(so.operators.Identity(), jnp.ones(2), damping=1.0)
      >>> found.solution.tolist(), bool(found.success)
      ([0.5, 0.5], True)
    """

    solution: Params
    residual_norm: jax.Array
    iterations: jax.Array
    products: jax.Array
    status: jax.Array

    @property
    def success(self) -> jax.Array:
        """Whether the residual is within the tolerance."""
        return self.status == LinearStatus.SOLVED.value

    @property
    def message(self) -> str:
        """The status in a sentence (not under ``jit``)."""
        return LinearStatus(int(self.status)).sentence


class _Found(NamedTuple):
    """A solution within ``custom_linear_solve``, of a right-hand side of length one."""

    x: Params
    residual: Params
    norm: jax.Array
    count: jax.Array
    products: jax.Array
    status: jax.Array


def solve(
    operator: Operator,
    rhs: Params,
    damping: tree.Scalar = 0.0,
    *,
    method: str | None = None,
    preconditioner: Preconditioner | Inverse | None = None,
    tolerance: float | None = None,
    max_steps: int | None = None,
) -> LinearSolution:
    """``x`` with ``(A + λI) x = b``, for an operator ``A`` and a tree ``b`` like the parameters.

    Runs under ``jit``, which compiles once for many calls, and under ``vmap``, which serves several
    right-hand sides. The solution is differentiable, forward and reverse, with respect to ``b``, λ
    and everything that the operator closes over, by another solve with the same matrix: no
    iteration is differentiated.

    Args:
      operator: A, such as ``so.hessian(f, params)`` or ``so.ggn(objective, params)``.
      rhs: b, a tree shaped like the parameters.
      damping: λ, not negative.
      method: ``"dense"``, by the eigenvalues of the matrix; ``"cg"``, for a positive definite
        matrix; ``"minres"``, for any. ``None`` takes ``"dense"`` up to 200 parameters; beyond, or
        with a preconditioner, ``"cg"`` for operators that are positive semi-definite by their
        form, such as Gauss-Newton and Fisher matrices, and ``"minres"`` for others, such as a
        Hessian.
      preconditioner: of ``"cg"`` and ``"minres"``: :func:`secondorder.solvers.nystrom`,
        :func:`secondorder.solvers.known_inverse`, or ``(quadratic, damping) -> (r ↦ M⁻¹ r)`` with
        M symmetric positive definite.
      tolerance: the largest ``‖b − (A + λI) x‖ / ‖b‖`` of a success; ``None`` takes ``√ε`` of
        the right-hand side (1.5e-8 in float64, 3.5e-4 in float32).
      max_steps: largest number of iterations; ``None`` takes ten times the dimension, at most
        10,000.

    Returns:
      A :class:`LinearSolution`. Failure is a status, never an exception or a NaN. For a singular
      matrix ``"dense"`` gives the shortest of the solutions of least residual.

    Raises:
      TypeError: no operator; a right-hand side that is not of real floating-point arrays.
      ValueError: a right-hand side that does not fit the operator, an unknown method, a negative
        damping, ``tolerance`` or ``max_steps`` not positive, a preconditioner of ``"dense"``.

    Example:
      >>> import jax.numpy as jnp, secondorder as so
      >>> f, p = lambda p: jnp.sum(jnp.array([1.0, -2.0]) * p**2), jnp.zeros(2)
      >>> found = so.solve(so.hessian(f, p), jnp.array([4.0, 8.0]))
      >>> found.solution.tolist(), found.message
      ([2.0, -2.0], 'The residual is within the tolerance.')

    Source: Hestenes and Stiefel (1952); Paige and Saunders (1975).
    """
    _check(operator, rhs, damping, method, preconditioner, tolerance, max_steps)
    wide = tree.accumulator(rhs)
    size, dtype = tree.size(wide), tree.dtype(wide)
    if method is None:
        formed = size <= DENSE_LIMIT and preconditioner is None
        method = "dense" if formed else "cg" if operator.semidefinite else "minres"
    damping = jnp.asarray(damping, dtype)
    tol = jnp.asarray(_tolerance(rhs) if tolerance is None else tolerance, dtype)
    limit = min(10 * size, MAX_STEPS) if max_steps is None else max_steps
    product = lambda v: tree.axpy(damping, v, operator.mv(v))

    def found(_, b: Params) -> tuple[Params, tuple]:
        """The solution and its report, which is never differentiated."""
        norm = tree.norm(b)
        sound = jnp.isfinite(norm)
        unit = jnp.where((norm > 0) & sound, norm, 1)
        b = tree.where(sound, tree.scale(1 / unit, b), tree.zeros_like(b))
        if method == "dense":
            out = _dense(operator, product, b, damping, tol)
        else:
            helper = as_preconditioner(preconditioner)
            quadratic = Quadratic(tree.negative(b), operator)
            factors, _, cost = helper.prepare(quadratic, helper.init(b))
            inverse = helper.inverse(quadratic, factors, damping)
            inner = {"cg": _by_cg, "minres": _by_minres}[method]
            out = _refined(inner, product, inverse, b, tol, limit, method == "cg")
            out = out._replace(products=out.products + jnp.asarray(cost.products, jnp.int32))
        sound = sound & jnp.isfinite(out.norm)
        x = tree.where(sound, tree.scale(unit, out.x), tree.zeros_like(b))
        status = jnp.where(sound, out.status, LinearStatus.NONFINITE.value).astype(jnp.int32)
        return x, (jnp.where(sound, unit * out.norm, jnp.inf), out.count, out.products, status)

    x, report = jax.lax.custom_linear_solve(
        _joined(product), wide, found, symmetric=True, has_aux=True
    )
    return LinearSolution(tree.cast(x, rhs), *map(jnp.asarray, jax.lax.stop_gradient(report)))


def _joined(product: Callable) -> Callable:
    """``product`` with every leaf of its image a function of all: for derivatives of derivatives.

    JAX does not transpose a derivative of ``custom_linear_solve`` in which a leaf is constant.
    """

    def joined(v: Params) -> Params:
        image = product(v)
        nothing = 0 * tree.total(image)
        return jax.tree.map(lambda y: y + nothing.astype(y.dtype), image)

    return joined


def _tolerance(rhs: Params) -> float:
    """``√ε`` of the lowest precision, which products with the operator may have."""
    kinds = map(tree.leaf_dtype, jax.tree.leaves(rhs))
    return max((float(jnp.finfo(kind).eps) for kind in kinds), default=1.0) ** 0.5


def _check(operator, rhs, damping, method, preconditioner, tolerance, max_steps) -> None:
    if not isinstance(operator, Operator):
        raise TypeError(
            f"solve needs an operator, such as secondorder.hessian(f, params), but got "
            f"{type(operator).__name__}. Make one of a linear function of the parameters by "
            "secondorder.operators.Function(product, like=params)."
        )
    tree.check_real(rhs, "rhs")
    settings.NOT_NEGATIVE.of("solve", "damping", damping)
    settings.POSITIVE.or_none().of("solve", "tolerance", tolerance)
    settings.COUNT.or_none().of("solve", "max_steps", max_steps)
    settings.PRECONDITIONER.or_none().of("solve", "preconditioner", preconditioner)
    if method not in (None, *METHODS):
        raise ValueError(f"solve got method={method!r}; pass one of {', '.join(METHODS)}, or None.")
    if method == "dense" and preconditioner is not None:
        raise ValueError(
            "solve got a preconditioner for method='dense', which has no iterations. Pass 'cg' or "
            "'minres', or leave the preconditioner out."
        )
    tree.check_match(jax.eval_shape(operator.mv, rhs), rhs, "the product A b", "the rhs b")


def _dense(operator: Operator, product: Callable, b: Params, damping, tol) -> _Found:
    matrix = operator.matrix(b)
    finite = jnp.all(jnp.isfinite(matrix)) & jnp.isfinite(damping)
    values, vectors = lapack.eigh(jnp.where(finite, matrix, 0))  # NaN may never end
    values = values + damping
    floor = values.size * jnp.finfo(values.dtype).eps * jnp.max(jnp.abs(values), initial=0)
    within = jnp.abs(values) > floor
    inverse = jnp.where(within, 1 / jnp.where(within, values, 1), 0)

    def once(b: Params) -> Params:
        parts = jnp.matmul(vectors.T, ravel(b), precision=HIGHEST)
        x = jnp.matmul(vectors, inverse * parts, precision=HIGHEST)
        return tree.cast(unravel(x, b), b)

    # The second solve takes the rounding of the first away.
    x = once(b)
    x = tree.add(x, once(tree.axpy(-1.0, product(x), b)))
    residual = tree.axpy(-1.0, product(x), b)
    norm = jnp.where(finite, tree.norm(residual), jnp.inf)
    short = jnp.where(
        jnp.all(within), LinearStatus.LIMIT_OF_PRECISION.value, LinearStatus.SINGULAR.value
    )
    one, count = jnp.ones((), jnp.int32), jnp.asarray(values.size + 2, jnp.int32)
    status = jnp.where(norm <= tol, LinearStatus.SOLVED.value, short)
    return _Found(x, residual, norm, one, count, status)


def _refined(inner: Callable, product, precondition, b, tol, limit, grows: bool) -> _Found:
    """Solves for the residual that is left, until the residual itself is within the tolerance.

    An iteration has its residual from a recurrence, which drifts, and in the norm of the
    preconditioner.

    Args:
      inner: ``(product, precondition, b, reduction, limit) -> (x, count, status)``.
      grows: whether a residual above that of zero may be progress.
    """

    def body(c: _Found) -> _Found:
        unit = jnp.where(c.norm > 0, c.norm, 1)
        target = jnp.minimum(0.5 * tol / unit, 0.5)
        scaled = tree.scale(1 / unit, c.residual)
        step, count, status = inner(product, precondition, scaled, target, limit - c.count)
        x = tree.axpy(unit, step, c.x)
        residual = tree.axpy(-1.0, product(x), b)
        norm = tree.norm(residual)
        # The residual of conjugate gradients may grow while the error falls.
        falls = grows & (c.count == 0) & (status <= LinearStatus.MAX_STEPS.value)
        better = (norm < c.norm) | falls | ~jnp.isfinite(norm)
        solved = norm <= tol
        halved = (norm <= 0.5 * c.norm) & (status == LinearStatus.SOLVED.value)
        spent = jnp.where(
            status == LinearStatus.SOLVED.value, LinearStatus.LIMIT_OF_PRECISION.value, status
        )
        going = jnp.where(halved, -1, spent)
        return _Found(
            tree.where(better, x, c.x),
            tree.where(better, residual, c.residual),
            jnp.where(better, norm, c.norm),
            c.count + count,
            c.products + count + 1,
            jnp.where(solved, LinearStatus.SOLVED.value, going).astype(jnp.int32),
        )

    none = jnp.zeros((), jnp.int32)
    norm = tree.norm(b)
    status = jnp.where(norm > 0, -1, LinearStatus.SOLVED.value).astype(jnp.int32)
    start = _Found(tree.zeros_like(b), b, norm, none, none, status)
    return jax.lax.while_loop(lambda c: c.status < 0, body, start)


def _by_cg(product, precondition, b, reduction, limit):
    first = conjugate_gradients.begin(tree.negative(b), precondition)
    eps = jnp.finfo(first.rz.dtype).eps
    target = jnp.maximum(reduction, eps) ** 2 * first.rz
    none = jnp.asarray(False)

    def going(carry):
        at, _, flat, negative = carry
        return (at.rz > target) & (at.count < limit) & ~flat & ~negative

    def iterate(carry):
        at, largest, _, _ = carry
        reach = lambda ray: jnp.where(ray.negative, 0, ray.length)
        at, ray = conjugate_gradients.advance(at, product, precondition, reach)
        length = tree.norm(ray.direction)
        curvature = ray.bend / jnp.where(length > 0, length, 1) / jnp.where(length > 0, length, 1)
        largest = jnp.maximum(largest, curvature)
        flat = ray.negative | (curvature <= 10 * eps * largest)
        return at, largest, flat, (curvature < -10 * eps * largest) | (at.rz < 0)

    start = first, jnp.zeros_like(first.rz), none, first.rz < 0
    at, _, flat, negative = jax.lax.while_loop(going, iterate, start)
    status = jnp.where(at.rz <= target, LinearStatus.SOLVED.value, LinearStatus.MAX_STEPS.value)
    status = jnp.where(flat, LinearStatus.SINGULAR.value, status)
    return at.step, at.count, jnp.where(negative, LinearStatus.INDEFINITE.value, status)


def _by_minres(product, precondition, b, reduction, limit):
    first = minres.begin(b, precondition)
    dtype = first.residual.dtype
    target = jnp.maximum(reduction, jnp.finfo(dtype).eps) * first.residual
    going = lambda at: (at.residual > target) & (at.count < limit) & ~at.least & ~at.indefinite
    at = jax.lax.while_loop(going, lambda at: minres.advance(at, product, precondition), first)
    within = at.residual <= target
    status = jnp.where(within, LinearStatus.SOLVED.value, LinearStatus.MAX_STEPS.value)
    status = jnp.where(at.least & ~within, LinearStatus.SINGULAR.value, status)
    return at.step, at.count, jnp.where(at.indefinite, LinearStatus.INDEFINITE.value, status)
