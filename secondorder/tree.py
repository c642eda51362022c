"""Vector operations on trees of parameters, leaf by leaf.

Nothing here flattens a tree, so sharded leaves stay where they are; only small leaves are joined
before they are summed. Sums run in at least float32, whatever the dtype of the leaves: a dot
product of bfloat16 gradients keeps its digits.
``optax.tree.vdot`` is not used because it ravels each leaf, which explicitly sharded arrays refuse.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from secondorder import meshes

Params = Any  # a pytree of floating-point arrays
Scalar = jax.typing.ArrayLike
Real = float | jax.Array  # a setting: a number, or an injected hyperparameter
MANY = 4096  # entries; larger leaves have kernels of their own


def joined(*dtypes: Any) -> Any:
    """The common dtype, also where ``jax_numpy_dtype_promotion`` is strict.

    Example:
      >>> import jax.numpy as jnp, secondorder as so
      >>> so.tree.joined(jnp.bfloat16, jnp.float32).name
      'float32'
    """
    with jax.numpy_dtype_promotion("standard"):
        return jnp.result_type(*dtypes)


def accumulation_dtype(dtype: Any) -> Any:
    """The dtype of sums over ``dtype``: itself, but at least float32.

    Example:
      >>> import jax.numpy as jnp, secondorder as so
      >>> so.tree.accumulation_dtype(jnp.bfloat16).name
      'float32'
    """
    return joined(dtype, jnp.float32)


def dtype(tree: Params) -> Any:
    """The dtype of scalars that belong to a tree: norms, damping, gain ratios.

    Example:
      >>> import jax.numpy as jnp, secondorder as so
      >>> x = {"a": jnp.array([1.0, -2.0]), "b": jnp.array(2.0)}
      >>> so.tree.dtype(x).name
      'float32'
    """
    return joined(jnp.float32, *map(leaf_dtype, jax.tree.leaves(tree)))


def leaf_dtype(leaf: Any) -> Any:
    """The dtype of a leaf as a JAX array: NumPy's float64 is float32 unless x64 is switched on.

    Example:
      >>> import jax.numpy as jnp, secondorder as so
      >>> so.tree.leaf_dtype(jnp.ones(2, jnp.float16)).name
      'float16'
    """
    if hasattr(leaf, "dtype"):
        return jax.dtypes.canonicalize_dtype(leaf.dtype)
    return jnp.result_type(leaf)


def size(tree: Params) -> int:
    """The dimension of the space: the number of scalars in the tree.

    Example:
      >>> import jax.numpy as jnp, secondorder as so
      >>> x = {"a": jnp.array([1.0, -2.0]), "b": jnp.array(2.0)}
      >>> so.tree.size(x)
      3
    """
    return sum(math.prod(jnp.shape(leaf)) for leaf in jax.tree.leaves(tree))


def vdot(a: Params, b: Params) -> jax.Array:
    """``Σ aᵢ bᵢ`` over all leaves, in at least float32.

    Example:
      >>> import jax.numpy as jnp, secondorder as so
      >>> x = {"a": jnp.array([1.0, -2.0]), "b": jnp.array(2.0)}
      >>> so.tree.vdot(x, x).item()
      9.0
    """
    out = dtype(a)

    def product(x: jax.Array, y: jax.Array) -> jax.Array:
        acc = joined(jnp.float32, x.dtype, y.dtype)
        return jnp.sum(x.astype(acc) * y.astype(acc)).astype(out)

    return sum((product(x, y) for x, y in _few(out, a, b)), jnp.zeros((), out))


def _few(out: Any, *trees: Params) -> list[tuple[jax.Array, ...]]:
    """Rows of corresponding leaves, for sums; small leaves are joined in the dtype ``out``.

    A reduction is two or three kernels, each compiled and launched: a network of twelve layers has
    two dozen leaves, two thirds of them small. Explicitly sharded leaves stay where they are.
    """
    rows = [tuple(map(jnp.asarray, row)) for row in zip(*map(jax.tree.leaves, trees), strict=True)]
    apart = lambda x: x.size >= MANY or not jax.typeof(x).sharding.mesh.empty
    large = [row for row in rows if any(map(apart, row))]
    small = [row for row in rows if not any(map(apart, row))]
    if len(small) < 2:
        return rows
    return [
        *large,
        tuple(
            jnp.concatenate([x.ravel().astype(out) for x in c]) for c in zip(*small, strict=True)
        ),
    ]


def total(x: Params) -> jax.Array:
    """``Σ xᵢ`` over all leaves, in at least float32.

    Example:
      >>> import jax.numpy as jnp, secondorder as so
      >>> x = {"a": jnp.array([1.0, -2.0]), "b": jnp.array(2.0)}
      >>> so.tree.total(x).item()
      1.0
    """
    out = dtype(x)
    return sum((jnp.sum(leaf.astype(out)) for (leaf,) in _few(out, x)), jnp.zeros((), out))


def norm(a: Params) -> jax.Array:
    """``√(Σ aᵢ²)``, scaled by the largest entry so that it neither overflows nor underflows.

    Example:
      >>> import jax.numpy as jnp, secondorder as so
      >>> x = {"a": jnp.array([1.0, -2.0]), "b": jnp.array(2.0)}
      >>> so.tree.norm(x).item()
      3.0
    """
    peak = max_abs(a)
    unit = jnp.where((peak > 0) & jnp.isfinite(peak), peak, 1)
    scaled = jax.tree.map(lambda x: jnp.asarray(x, dtype(x)) / unit.astype(dtype(x)), a)
    return unit * jnp.sqrt(vdot(scaled, scaled)).astype(unit.dtype)


def max_abs(a: Params) -> jax.Array:
    """The largest entry in magnitude; 0 for an empty tree, NaN if an entry is NaN.

    Example:
      >>> import jax.numpy as jnp, secondorder as so
      >>> x = {"a": jnp.array([1.0, -2.0]), "b": jnp.array(2.0)}
      >>> so.tree.max_abs(x).item()
      2.0
    """
    out = dtype(a)
    peaks = [jnp.max(jnp.abs(x)).astype(out) for (x,) in _few(out, a) if x.size]
    return jnp.max(jnp.stack(peaks)) if peaks else jnp.zeros((), out)


def together(*arrays: jax.Array) -> list[jax.Array]:
    """The arrays in their common dtype.

    Example:
      >>> import jax.numpy as jnp, secondorder as so
      >>> [a.dtype.name for a in so.tree.together(jnp.ones(2), jnp.ones(2, jnp.bfloat16))]
      ['float32', 'float32']
    """
    wide = joined(*(x.dtype for x in arrays))
    return [x.astype(wide) for x in arrays]


def times(a: jax.Array, x: jax.Array) -> jax.Array:
    """``a x`` of two arrays, in the dtype of ``x``.

    Example:
      >>> import jax.numpy as jnp, secondorder as so
      >>> so.tree.times(jnp.array(2.0), jnp.ones(2)).tolist()
      [2.0, 2.0]
    """
    left, right = together(a, x)
    return (left * right).astype(x.dtype)


def axpy(alpha: Scalar, x: Params, y: Params) -> Params:
    """``α x + y``, in the dtype of ``y``.

    Example:
      >>> import jax.numpy as jnp, secondorder as so
      >>> x = {"a": jnp.array([1.0, -2.0]), "b": jnp.array(2.0)}
      >>> so.tree.axpy(2.0, x, x)["a"].tolist()
      [3.0, -6.0]
    """
    return jax.tree.map(lambda xi, yi: jnp.asarray(alpha * xi + yi, leaf_dtype(yi)), x, y)


def scale(alpha: Scalar, x: Params) -> Params:
    """``α x``, in the dtype of ``x``.

    Example:
      >>> import jax.numpy as jnp, secondorder as so
      >>> x = {"a": jnp.array([1.0, -2.0]), "b": jnp.array(2.0)}
      >>> so.tree.scale(2.0, x)["a"].tolist()
      [2.0, -4.0]
    """
    return jax.tree.map(lambda xi: jnp.asarray(alpha * xi, leaf_dtype(xi)), x)


def add(x: Params, y: Params) -> Params:
    """``x + y``.

    Example:
      >>> import jax.numpy as jnp, secondorder as so
      >>> x = {"a": jnp.array([1.0, -2.0]), "b": jnp.array(2.0)}
      >>> so.tree.add(x, x)["a"].tolist()
      [2.0, -4.0]
    """
    return jax.tree.map(jnp.add, x, y)


def negative(x: Params) -> Params:
    """``−x``.

    Example:
      >>> import jax.numpy as jnp, secondorder as so
      >>> x = {"a": jnp.array([1.0, -2.0]), "b": jnp.array(2.0)}
      >>> so.tree.negative(x)["a"].tolist()
      [-1.0, 2.0]
    """
    return jax.tree.map(jnp.negative, x)


def where(condition: Scalar, x: Params, y: Params) -> Params:
    """``x`` where the scalar ``condition`` holds, else ``y``; also for whole states.

    Example:
      >>> import jax.numpy as jnp, secondorder as so
      >>> x = {"a": jnp.array([1.0, -2.0]), "b": jnp.array(2.0)}
      >>> so.tree.where(jnp.array(True), x, so.tree.scale(0.0, x))["b"].item()
      2.0
    """
    return jax.tree.map(lambda a, b: jnp.where(condition, a, b), x, y)


def running_mean(mean: Any, new: Any, decay: Scalar, count: jax.Array, debias: bool = True) -> Any:
    """The exponential moving average ``mean`` after one more value, in the dtypes of ``mean``.

    ``debias`` divides by ``1 − decayⁿ``, so that the weights of all values sum to one from the
    first on: the same as ``mean + w (new − mean)`` with ``w = (1 − decay) / (1 − decayⁿ)``. Without
    it, the first mean (zeros) keeps its weight. A decay of 1 gives the sum.

    Args:
      count: number of values in ``mean``.

    Example:
      >>> import jax.numpy as jnp, secondorder as so
      >>> so.tree.running_mean(jnp.array(1.0), jnp.array(3.0), 0.5, 1, debias=False).item()
      2.0
    """

    def leaf(a: jax.Array, x: jax.Array) -> jax.Array:
        rate = jnp.asarray(decay, a.dtype)
        w = 1 - rate
        if debias:
            mass = 1 - rate ** (count + 1).astype(a.dtype)
            w = w / jnp.where(mass > 0, mass, 1)
        total = rate == 1
        return jnp.where(total, 1, 1 - w) * a + jnp.where(total, 1, w) * jnp.asarray(x, a.dtype)

    return jax.tree.map(leaf, mean, new)


def spread(bound: Any, params: Params, name: str) -> Params:
    """``bound`` as a tree like ``params``; a number fills every entry.

    Raises:
      ValueError: a tree that differs from ``params`` in structure or shapes.

    Example:
      >>> import jax.numpy as jnp, secondorder as so
      >>> x = {"a": jnp.array([1.0, -2.0]), "b": jnp.array(2.0)}
      >>> so.tree.spread(0.0, x, "the lower bound")["a"].tolist()
      [0.0, 0.0]
    """
    if jax.tree.structure(bound) == jax.tree.structure(0) and jnp.ndim(bound) == 0:
        return jax.tree.map(
            lambda x: meshes.placed_like(jnp.full(x.shape, bound, x.dtype), x), params
        )
    check_match(bound, params, name, "params")
    return jax.tree.map(lambda b, x: jnp.asarray(b, x.dtype), bound, params)


def only(mask: Params, x: Params) -> Params:
    """``x`` where the tree of booleans holds, zero elsewhere.

    Example:
      >>> import jax.numpy as jnp, secondorder as so
      >>> x = {"a": jnp.array([1.0, -2.0]), "b": jnp.array(2.0)}
      >>> so.tree.only({"a": True, "b": False}, x)["b"].item()
      0.0
    """
    return jax.tree.map(lambda m, leaf: jnp.where(m, leaf, 0), mask, x)


def folded(data: jax.Array, count: jax.Array) -> jax.Array:
    """The key for a count, from key data (a plain array, so that a state can be saved).

    Example:
      >>> import jax, jax.numpy as jnp, secondorder as so
      >>> data = jax.random.key_data(jax.random.key(0))
      >>> bool(jnp.all(so.tree.folded(data, 1) == so.tree.folded(data, 1)))
      True
    """
    return jax.random.fold_in(jax.random.wrap_key_data(data), count)


def random_signs(key: jax.Array, like: Params) -> Params:
    """±1 with equal odds, shaped like a tree, in at least float32; a key is folded per leaf.

    Example:
      >>> import jax, jax.numpy as jnp, secondorder as so
      >>> so.tree.random_signs(jax.random.key(0), jnp.zeros((2, 3))).shape
      (2, 3)
    """
    return _drawn(jax.random.rademacher, key, like)


def random_normal(key: jax.Array, like: Params) -> Params:
    """Standard normal numbers, shaped like a tree, in at least float32; a key per leaf.

    Example:
      >>> import jax, jax.numpy as jnp, secondorder as so
      >>> so.tree.random_normal(jax.random.key(0), jnp.zeros((2, 3))).shape
      (2, 3)
    """
    return _drawn(jax.random.normal, key, like)


def _drawn(draw: Callable, key: jax.Array, like: Params) -> Params:
    leaves, structure = jax.tree.flatten(accumulator(like))

    def one(i: int, leaf: jax.Array) -> jax.Array:
        return meshes.placed_like(draw(jax.random.fold_in(key, i), leaf.shape, leaf.dtype), leaf)

    return jax.tree.unflatten(structure, [one(i, leaf) for i, leaf in enumerate(leaves)])


def zeros_like(x: Params) -> Params:
    """Zeros of the same shapes, dtypes and shardings; accepts ``ShapeDtypeStruct`` leaves.

    Example:
      >>> import jax.numpy as jnp, secondorder as so
      >>> x = {"a": jnp.array([1.0, -2.0]), "b": jnp.array(2.0)}
      >>> so.tree.zeros_like(x)["a"].tolist()
      [0.0, 0.0]
    """
    # JAX takes the sharding of a traced array, but not that of a constant.
    return jax.tree.map(lambda leaf: meshes.placed_like(jnp.zeros_like(leaf), leaf), x)


def rows_like(x: Params, rows: int) -> Params:
    """Zeros of shapes ``(rows, *shape)`` and of the same dtypes and shardings.

    Example:
      >>> import jax.numpy as jnp, secondorder as so
      >>> x = {"a": jnp.array([1.0, -2.0]), "b": jnp.array(2.0)}
      >>> so.tree.rows_like(x, 5)["a"].shape
      (5, 2)
    """
    wide = lambda leaf: jnp.broadcast_to(leaf[None], (rows, *leaf.shape))
    return jax.tree.map(wide, zeros_like(x))


def cast(x: Params, like: Params) -> Params:
    """``x`` in the dtypes of ``like``.

    Example:
      >>> import jax.numpy as jnp, secondorder as so
      >>> x = {"a": jnp.array([1.0, -2.0]), "b": jnp.array(2.0)}
      >>> so.tree.cast(x, {"a": jnp.zeros(2, jnp.float16), "b": jnp.array(0.0)})["a"].dtype.name
      'float16'
    """
    return jax.tree.map(lambda a, b: jnp.asarray(a, leaf_dtype(b)), x, like)


def accumulator(x: Params) -> Params:
    """``x`` in the dtype of its sums (at least float32).

    Example:
      >>> import jax.numpy as jnp, secondorder as so
      >>> x = {"a": jnp.array([1.0, -2.0]), "b": jnp.array(2.0)}
      >>> so.tree.accumulator(x)["a"].dtype.name
      'float32'
    """
    return jax.tree.map(lambda a: jnp.asarray(a, accumulation_dtype(leaf_dtype(a))), x)


def power_of_two(x: jax.Array) -> jax.Array:
    """A power of two near ``x > 0``, so that a division by it is exact; 1 for other ``x``.

    Example:
      >>> import jax.numpy as jnp, secondorder as so
      >>> so.tree.power_of_two(jnp.array(5.0)).item()
      4.0
    """
    limits = jnp.finfo(x.dtype)
    usable = jnp.isfinite(x) & (x >= limits.tiny)
    kept = jnp.where(usable, jnp.minimum(x, limits.max / 4), 1)
    return jax.lax.reduce_precision(kept, limits.nexp, 0)


def nan_unless(sound: jax.Array, x: jax.Array) -> jax.Array:
    """``x``, NaN where not sound; no NaN arises before, so ``jax_debug_nans`` does not raise.

    Example:
      >>> import jax.numpy as jnp, secondorder as so
      >>> so.tree.nan_unless(jnp.array(False), jnp.array(1.0)).item()
      nan
    """
    return x + 0 * jnp.where(sound, jnp.zeros((), x.dtype), jnp.inf)


def all_finite(x: Params) -> jax.Array:
    """Whether all entries are finite.

    Example:
      >>> import jax.numpy as jnp, secondorder as so
      >>> x = {"a": jnp.array([1.0, -2.0]), "b": jnp.array(2.0)}
      >>> so.tree.all_finite(x).item()
      True
    """
    # Zero times a non-finite number is NaN, and a sum is faster than a conjunction; one sum for all
    # leaves of a kind, since each costs a kernel or two.
    alike: dict[Any, jax.Array] = {}
    for (leaf,) in _few(dtype(x), x):
        kind = jax.typeof(leaf)
        alike[kind] = alike.get(kind, 0) + 0 * leaf
    sums = [jnp.isfinite(jnp.sum(leaf)) for leaf in alike.values()]
    return jnp.all(jnp.stack(sums)) if sums else jnp.asarray(True)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Parts:
    """A complex array as two real ones of the same shape.

    Example:
      >>> import jax.numpy as jnp, secondorder as so
      >>> parts = so.tree.Parts(jnp.ones(2), jnp.zeros(2))
      >>> so.tree.whole(parts).dtype.name
      'complex64'
    """

    real: jax.Array
    imag: jax.Array


def parts(x: Any) -> Any:
    """``x`` with every complex leaf as its :class:`Parts`; the others as they are.

    Example:
      >>> import jax.numpy as jnp, secondorder as so
      >>> so.tree.parts(jnp.array([1 + 2j])).imag.tolist()
      [2.0]
    """
    split = lambda leaf: Parts(jnp.real(leaf), jnp.imag(leaf)) if is_complex(leaf) else leaf
    return jax.tree.map(split, x)


def whole(x: Any) -> Any:
    """``x`` with all :class:`Parts` joined: the inverse of :func:`parts`.

    Example:
      >>> import jax.numpy as jnp, secondorder as so
      >>> x = jnp.array([1 + 2j])
      >>> bool(jnp.all(so.tree.whole(so.tree.parts(x)) == x))
      True
    """
    is_parts = lambda leaf: isinstance(leaf, Parts)
    join = lambda leaf: jax.lax.complex(leaf.real, leaf.imag) if is_parts(leaf) else leaf
    return jax.tree.map(join, x, is_leaf=is_parts)


def is_real(leaf: Any) -> bool:
    """Whether a leaf is of a real floating-point dtype.

    Example:
      >>> import jax.numpy as jnp, secondorder as so
      >>> so.tree.is_real(jnp.ones(2)), so.tree.is_real(jnp.arange(2))
      (True, False)
    """
    return jnp.issubdtype(leaf_dtype(leaf), jnp.floating)


def is_complex(leaf: Any) -> bool:
    """Whether a leaf is of a complex dtype.

    Example:
      >>> import jax.numpy as jnp, secondorder as so
      >>> so.tree.is_complex(1j * jnp.ones(2))
      True
    """
    return jnp.issubdtype(leaf_dtype(leaf), jnp.complexfloating)


def check_real(params: Params, name: str = "params") -> None:
    """Raise a ``TypeError`` with the first leaf that is not a real floating-point array.

    Example:
      >>> import jax.numpy as jnp, secondorder as so
      >>> x = {"a": jnp.array([1.0, -2.0]), "b": jnp.array(2.0)}
      >>> so.tree.check_real(x)
    """
    cure = (
        "Pass the floating-point arrays alone and join the rest in the objective (of an Equinox "
        "module: eqx.partition(model, eqx.is_inexact_array) and eqx.combine; of an NNX one: "
        "nnx.split(model, nnx.Param, ...) and nnx.merge)."
    )
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        where_ = f"{name}{jax.tree_util.keystr(path)}"
        kind = getattr(leaf, "dtype", None)
        if kind is None:
            if not isinstance(leaf, (bool, int, float, complex)):
                raise TypeError(f"{where_} is {leaf!r}, which is no array. {cure}")
            kind = leaf_dtype(leaf)
        if jnp.issubdtype(kind, jnp.complexfloating):
            raise TypeError(
                f"{where_} is complex ({kind}). Second-order methods here work on real parameters: "
                "pass the real and imaginary parts as two leaves and join them in the model."
            )
        if not jnp.issubdtype(kind, jnp.floating):
            number = " Write 1.0 for 1." if isinstance(leaf, int) else ""
            raise TypeError(f"{where_} has dtype {kind}, which has no derivative.{number} {cure}")


def check_match(tree: Params, like: Params, name: str, like_name: str) -> None:
    """Raise a ``ValueError`` where two trees differ in structure or shapes.

    Example:
      >>> import jax.numpy as jnp, secondorder as so
      >>> x = {"a": jnp.array([1.0, -2.0]), "b": jnp.array(2.0)}
      >>> so.tree.check_match(x, x, "the gradients", "params")
    """
    found, expected = jax.tree.structure(tree), jax.tree.structure(like)
    if found != expected:
        raise ValueError(
            f"{name} must have the tree structure of {like_name}, but {name} is {found} and "
            f"{like_name} is {expected}."
        )
    pairs = zip(jax.tree_util.tree_leaves_with_path(tree), jax.tree.leaves(like), strict=True)
    for (path, leaf), other in pairs:
        if jnp.shape(leaf) != jnp.shape(other):
            raise ValueError(
                f"{name}{jax.tree_util.keystr(path)} has shape {jnp.shape(leaf)}, but "
                f"{like_name} has shape {jnp.shape(other)} there."
            )
