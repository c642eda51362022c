"""Variable projection: in a least-squares fit, linear parameters follow from the others.

Where residuals are ``A(α) c + b(α)``, the best ``c`` follows from α, so only α is searched:

    min over α, c of ‖A c + b‖  =  min over α of ‖P⊥ b‖,    c(α) = −A⁺ b,    P⊥ = I − A A⁺

and a minimum or stationary point of one is that of the other (Golub and Pereyra 1973, theorem
2.1). With ``ρ = P⊥ b`` and ``e = dA c + db``, the derivatives are exact where the rank is constant:

    dρ = P⊥ e − A⁺ᵀ dAᵀ ρ        dc = −A⁺ (e + A⁺ᵀ dAᵀ ρ)

Kaufman (1975) drops the second term of dρ, which saves little here: the factors exist already, and
the implicit derivative of a solution needs the exact one. ``A⁺`` is applied by singular values of
``A`` with its columns scaled to length one, so units do not matter and no condition number is
squared.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax

from secondorder import tree
from secondorder.linalg._svd import thin_svd
from secondorder.operators._dense import ravel, unravel
from secondorder.operators._jacobian import Jacobian, linearize
from secondorder.optimize._bounds import Box
from secondorder.tree import Params
from secondorder.tree._gaps import filled, is_gap

HIGHEST = jax.lax.Precision.HIGHEST


def scaled_svd(a: jax.Array) -> tuple[jax.Array, ...]:
    """``u, s, vt, norms, kept``: singular values of ``A`` with its columns scaled to length one.

    ``norms`` are the lengths of the columns (one for zeros), ``kept`` marks the singular values
    above rounding. For an ``A`` that is not finite all are NaN, and kept.
    """
    # LAPACK may not return from a matrix with NaN, so NaN is put into the factors afterwards.
    sound = jnp.all(jnp.isfinite(a))
    a = jnp.where(sound, a, 0)
    norms = jax.vmap(tree.norm, in_axes=1)(a)
    norms = jnp.where(norms > 0, norms, 1)
    u, s, vt = thin_svd(a / norms[None])
    kept = ~sound | (s > max(a.shape) * jnp.finfo(s.dtype).eps * jnp.max(s, initial=0))
    failed = tree.nan_unless(sound, jnp.ones((), a.dtype))
    return failed * u, failed * s, failed * vt, failed * norms, kept


@jax.custom_jvp
def frame(a: jax.Array) -> tuple[jax.Array, jax.Array]:
    """``U`` and ``M`` with ``A⁺ = M Uᵀ``: orthonormal columns that span ``A``, then zeros.

    ``dU = P⊥ dA M`` and ``dM = −M Uᵀ dA M``: the frame turns only as far as the range of ``A``.
    Singular vectors also turn within the range, infinitely fast where singular values meet; no
    product below depends on that rotation.
    """
    u, s, vt, norms, kept = scaled_svd(a)
    inverse = jnp.where(kept, 1 / jnp.where(kept, s, 1), 0)
    return jnp.where(kept[None], u, 0), (vt.T * inverse[None]) / norms[:, None]


def rank(u: jax.Array) -> jax.Array:
    """The rank of a matrix, from the ``U`` of its :func:`frame`."""
    return jnp.sum(jnp.any(u != 0, axis=0))


@frame.defjvp
def _(primals, tangents):
    (a,), (da,) = primals, tangents
    u, m = frame(a)
    moved = _times(da, m)
    inside = _times(u.T, moved)
    return (u, m), (moved - _times(u, inside), -_times(m, inside))


@jax.custom_jvp
def project(
    a: jax.Array, u: jax.Array, m: jax.Array, b: jax.Array, left: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """``(c, ρ) = (left − A⁺ b, P⊥ b)``, for ``u, m = frame(a)`` and ``A left = 0``.

    The plain derivative through the frame has the same value, but forms ``dA M`` before the product
    with ``Uᵀ b``, and so loses as many digits as the condition number of ``A`` has.
    """
    return left - _times(m, _times(u.T, b)), _off(u, b)


@project.defjvp
def _(primals, tangents):
    (a, u, m, b, left), (da, _, _, db, _) = primals, tangents
    c, rho = project(a, u, m, b, left)
    back = _times(u, _times(m.T, _times(da.T, rho)))
    e = _times(da, c) + db + back
    return (c, rho), (-_times(m, _times(u.T, e)), _off(u, e) - back)


def _off(u: jax.Array, b: jax.Array) -> jax.Array:
    """``P⊥ b``, applied twice, since ``A⁺`` magnifies rounding of b left in the range."""
    rest = b - _times(u, _times(u.T, b))
    return rest - _times(u, _times(u.T, rest))


def _times(a: jax.Array, b: jax.Array) -> jax.Array:
    return jnp.matmul(a, b, precision=HIGHEST)


@dataclasses.dataclass(frozen=True, eq=False)
class Separated:
    """A residual as a function of its nonlinear parameters alone.

    Attributes:
      residual: ``params ↦`` array.
      searched, linear: the parameters in two trees, each with ``optax.MaskedNode()`` where the
        other has leaves; ``linear`` matters only in undetermined directions, where the solution
        stays nearest to it.
    """

    residual: Callable[[Params], jax.Array]
    searched: Params
    linear: Params

    @property
    def is_linear(self) -> Params:
        """Mask of the linear leaves."""
        return jax.tree.map(is_gap, self.searched, is_leaf=is_gap)

    def projected(self, searched: Params) -> jax.Array:
        """``P⊥ b``, the residual at the best linear parameters."""
        return self._solve(searched)[1]

    def whole(self, searched: Params) -> Params:
        """All parameters: the searched ones, and the best linear ones for them."""
        c, _ = self._solve(searched)
        return filled(searched, tree.cast(unravel(c, self.linear), self.linear))

    def searched_of(self, params: Params) -> Params:
        """The nonlinear parameters of all."""
        return _split(params, self.is_linear)[0]

    def bent(self, params: Params) -> Params:
        """For each linear leaf, whether the residual's slope in it is not constant.

        Compares the slope at ``params`` (at one where a parameter is zero) with that at zero,
        column by column.
        """
        searched, linear = _split(params, self.is_linear)
        probe = jax.tree.map(lambda c: jnp.where(c == 0, 1, c), linear)
        zero, there = (self._at(searched, c).dense() for c in (tree.zeros_like(linear), probe))
        size = jnp.maximum(jnp.linalg.norm(zero, axis=0), jnp.linalg.norm(there, axis=0))
        gap = jnp.linalg.norm(there - zero, axis=0)
        same = gap <= jnp.sqrt(jnp.finfo(gap.dtype).eps) * size
        flags = ~same & jnp.all(jnp.isfinite(there), axis=0)
        return jax.tree.map(jnp.any, unravel(flags, linear))

    def _at(self, searched: Params, linear: Params) -> Jacobian:
        vector = lambda c: ravel(tree.parts(self.residual(filled(searched, c))))
        return linearize(vector, linear)

    def _solve(self, searched: Params) -> tuple[jax.Array, jax.Array]:
        at = self._at(searched, tree.zeros_like(self.linear))
        a, b = at.dense(), at.outputs
        u, m = frame(a)
        # The start's component in the null space of A keeps coincident exponents separable.
        start = ravel(self.linear)
        left = start - _times(m, _times(u.T, _times(a, start)))
        left = jax.lax.stop_gradient(jnp.where(rank(u) == start.size, 0, left))
        return project(a, u, m, b, left)


def separate(
    residual: Callable[[Params], jax.Array], params: Params, mask: Params
) -> Separated | None:
    """``residual`` separated by ``mask`` into linear and other leaves; ``None`` if none is linear.

    Args:
      mask: a boolean for each leaf.

    Raises:
      ValueError: a leaf that the residual is not affine in, if found before the fit (not under
        ``jit``).
    """
    if not any(jax.tree.leaves(mask)):
        return None
    parts = Separated(residual, *_split(params, mask))
    bent = parts.bent(params)
    for path, flag in jax.tree_util.tree_leaves_with_path(bent):
        try:
            is_bent = bool(flag)
        except jax.errors.TracerBoolConversionError:
            continue
        if is_bent:
            leaf = f"params{jax.tree_util.keystr(path)}"
            raise ValueError(
                f"separable says that the model is affine in {leaf}, but its derivative there is "
                f"not constant. Mark {leaf} False, and it is searched for."
            )
    return parts


def without_linear(bounds: Box, parts: Separated, params: Params) -> Box:
    """``bounds`` of the searched parameters alone.

    Raises:
      ValueError: a finite bound on a linear parameter.
    """

    def searched(bound: Params, name: str, none: float) -> Params:
        rest, linear = _split(tree.spread(bound, params, f"the {name} bound"), parts.is_linear)
        for path, leaf in jax.tree_util.tree_leaves_with_path(linear):
            try:
                is_bound = bool(jnp.any(leaf != none))
            except jax.errors.TracerBoolConversionError:
                is_bound = True  # not concrete under jit
            if is_bound:
                raise ValueError(
                    f"the {name} bound of params{jax.tree_util.keystr(path)} must be {none}, for "
                    "separable solves for the linear parameters as if nothing bounded them. Bound "
                    "the others alone, or mark this one False."
                )
        return rest

    return searched(bounds[0], "lower", -math.inf), searched(bounds[1], "upper", math.inf)


def _split(params: Params, mask: Params) -> tuple[Params, Params]:
    """``params`` where the mask is false, and where it is true; gaps elsewhere."""
    gap = optax.MaskedNode()
    return (
        jax.tree.map(lambda m, p: gap if m else p, mask, params),
        jax.tree.map(lambda m, p: p if m else gap, mask, params),
    )
