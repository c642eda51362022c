"""The observations of a fit: one array or several data sets, their weights, and what is missing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from secondorder import checks, meshes, tree
from secondorder.linalg import _lapack as lapack
from secondorder.tree import Params

POLICIES = ("propagate", "raise", "omit")


class Data(NamedTuple):
    """The data of a fit, as in :func:`secondorder.curve_fit`."""

    x: Any
    y: Any
    sigma: Any


def observations(y: Any) -> Any:
    """``y`` as an array, or as a tree of arrays where it is one."""
    several = isinstance(y, tuple | list) and any(np.ndim(x) for x in y if hasattr(x, "shape"))
    try:
        if several or not (isinstance(y, tuple | list) or hasattr(y, "dtype")):
            return jax.tree.map(jnp.asarray, y)
        return jnp.asarray(y)
    except (TypeError, ValueError) as error:
        raise TypeError(
            "curve_fit needs y to be an array of numbers, or a tree of arrays, but it cannot be "
            f"made one: {error}. For rows of several lengths, pass a tuple of arrays."
        ) from error


def check_policy(policy: str, data: Data) -> None:
    """Raise an error for an unknown policy, or for the numbers that ``"raise"`` forbids.

    Data that are traced have no values yet.
    """
    if policy not in POLICIES:
        raise ValueError(f"curve_fit got nan_policy={policy!r}; pass one of {', '.join(POLICIES)}.")
    if policy != "raise":
        return
    for path, leaf in jax.tree_util.tree_leaves_with_path(data._asdict()):
        if hasattr(leaf, "dtype") and not isinstance(leaf, Tracer):
            array = np.asarray(leaf)
            if array.dtype.kind in "fc" and not np.all(np.isfinite(array)):
                raise ValueError(
                    f"curve_fit got numbers that are not finite in {path[0].key}"
                    f'{jax.tree_util.keystr(path[1:])}. Pass nan_policy="omit" to leave those '
                    "points out."
                )


class Observed(NamedTuple):
    """A model beside the observations.

    Attributes:
      residual: ``params ↦`` the weighted residuals, shaped like ``y`` (several arrays are joined);
        zero where an observation is left out.
      kept: mask of the observations that count, or ``None`` for all.
    """

    residual: Callable[[Params], jax.Array]
    kept: jax.Array | None

    def count(self, rows: int) -> int | jax.Array:
        """The number of observations that count, of so many; a complex one is two."""
        if self.kept is None:
            return rows
        return jnp.sum(self.kept) * (rows // self.kept.size)


def observed(model: Callable[[Params, Any], Any], data: Data, omit: bool) -> Observed:
    """The residuals of a model; with ``omit``, without the points that are not finite."""
    sigma = _sigma(data)
    shapes = data.y
    y = _joined(data.y)
    x, kept = data.x, None
    if omit:
        x, y, sigma, kept = _without(data, y, sigma)
    whiten = _whitening(sigma, y)

    def residual(p: Params) -> jax.Array:
        with checks.traced("curve_fit", "model"):
            predicted = _joined(_checked(model(p, x), shapes))
        r = predicted - y
        return whiten(r if kept is None else jnp.where(kept, r, 0))

    return Observed(residual, kept)


def _checked(predicted: Any, y: Any) -> Any:
    """Predictions that are shaped like the observations."""
    predicted = checks.as_arrays(predicted, "curve_fit")
    if isinstance(y, jax.Array) and not isinstance(predicted, jax.Array):
        raise TypeError(
            "curve_fit needs a model that returns one array, shaped like y, but it "
            f"returned {checks.described(predicted)}."
        )
    found, expected = jax.tree.map(jnp.shape, (predicted, y))
    if jax.tree.structure(predicted) != jax.tree.structure(y) or found != expected:
        raise ValueError(
            f"curve_fit needs predictions shaped like y, {expected}, but the model returned "
            f"{'shape ' if isinstance(y, jax.Array) else ''}{found}."
        )
    return predicted


def _joined(y: Any) -> jax.Array:
    """One array as it is; several, as one vector."""
    leaves = jax.tree.leaves(y)
    if len(leaves) == 1:
        return leaves[0]
    if len({tree.is_complex(x) for x in leaves}) > 1:
        raise ValueError(
            "curve_fit got real and complex arrays in y. Split the complex ones into real and "
            "imaginary parts, in y and in the predictions."
        )
    return jnp.concatenate([meshes.gathered(x).reshape(-1) for x in leaves])


def _sigma(data: Data) -> Any:
    """``sigma`` as an array that fits the joined observations."""
    y, sigma = data.y, data.sigma
    single = jax.tree.structure(sigma) == jax.tree.structure(0)
    if sigma is None or isinstance(y, jax.Array) or single:
        return sigma
    if jax.tree.structure(sigma) != jax.tree.structure(y):
        raise ValueError(
            f"curve_fit got sigma of the structure {jax.tree.structure(sigma)} for y of "
            f"{jax.tree.structure(y)}. Pass a tree like y, or a covariance of all observations."
        )
    for s, x in zip(jax.tree.leaves(sigma), jax.tree.leaves(y), strict=True):
        if np.shape(s) not in ((), x.shape):
            raise ValueError(f"curve_fit got sigma of shape {np.shape(s)} for y of {x.shape}.")
    return _joined(jax.tree.map(lambda s, x: jnp.broadcast_to(s, x.shape), sigma, y))


def _without(data: Data, y: jax.Array, sigma: Any) -> tuple[Any, jax.Array, Any, jax.Array]:
    """``x, y, sigma`` with harmless numbers in place of those not finite, and the mask of the rest.

    The derivative of a masked residual is zero times that of the model, so that the model must be
    finite there: an ``x`` that is not finite becomes another one of the same array.
    """
    kept = _joined(jax.tree.map(lambda one, own: _whole_points(one, own), data.y, _own(data)))
    kept = kept & jnp.isfinite(y)
    if sigma is not None:
        sigma = jnp.asarray(sigma)
        if sigma.shape == y.shape:
            kept = kept & jnp.isfinite(sigma)
            sigma = jnp.where(kept, sigma, 1)
        elif sigma.ndim == 2:
            kept = kept & jnp.isfinite(jnp.diagonal(sigma)).reshape(y.shape)
            flat = kept.reshape(-1)
            sigma = jnp.where(flat[:, None] & flat[None, :], sigma, jnp.eye(y.size))

    def finite(x: Any) -> Any:
        if not _is_inexact(x):
            return x
        sound = jnp.isfinite(x)
        return jnp.where(sound, x, jnp.ravel(x)[jnp.argmax(jnp.ravel(sound))])

    return jax.tree.map(finite, data.x), jnp.where(kept, y, 0), sigma, kept


class _Own(NamedTuple):
    """The arrays of ``x`` that belong to one array of ``y``."""

    arrays: list


def _own(data: Data) -> Any:
    leaves = [x for x in jax.tree.leaves(data.x) if _is_inexact(x)]
    if jax.tree.structure(data.x) == jax.tree.structure(data.y):
        return jax.tree.map(lambda x: _Own([x] if _is_inexact(x) else []), data.x)
    return jax.tree.map(lambda _: _Own(leaves), data.y)


def _whole_points(y: jax.Array, own: _Own) -> jax.Array:
    """Mask of the points whose ``x`` is finite, for those shaped like ``y`` up to further axes."""
    kept = jnp.ones(y.shape, bool)
    for x in own.arrays:
        more = jnp.ndim(x) - y.ndim
        if more >= 0 and x.shape[: y.ndim] == y.shape:
            kept = kept & jnp.all(jnp.isfinite(x), axis=tuple(range(y.ndim, y.ndim + more)))
        elif more > 0 and x.shape[more:] == y.shape:
            kept = kept & jnp.all(jnp.isfinite(x), axis=tuple(range(more)))
    return kept


def _is_inexact(x: Any) -> bool:
    return hasattr(x, "dtype") and jnp.issubdtype(x.dtype, jnp.inexact)


def _whitening(sigma: Any, y: jax.Array) -> Callable[[jax.Array], jax.Array]:
    """``r ↦ r/σ``, or ``L⁻¹ r`` for a covariance ``L Lᵀ``."""
    if sigma is None:
        return lambda r: r
    sigma = jnp.asarray(sigma)
    if tree.is_complex(sigma):
        raise ValueError(
            "curve_fit got a complex sigma. Pass real standard deviations or a real covariance: of "
            "complex observations, those of the real part and of the imaginary one alike."
        )
    if sigma.shape in ((), y.shape):
        return lambda r: r / sigma.astype(r.dtype)
    if sigma.shape == (y.size, y.size):
        factor = lapack.cholesky(sigma)
        white = lambda r: lapack.with_lower(factor.astype(r.dtype), meshes.gathered(r).reshape(-1))
        return lambda r: tree.whole(jax.tree.map(white, tree.parts(r)))
    raise ValueError(
        f"curve_fit got sigma of shape {sigma.shape} for y of shape {y.shape}. Pass standard "
        f"deviations of shape {y.shape}, or a covariance of shape {(y.size, y.size)}."
    )
