"""The dtypes of leaves, and of sums over them."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from secondorder.tree._types import Params


def joined(*dtypes: DTypeLike) -> jnp.dtype:
    """The common dtype, also where ``jax_numpy_dtype_promotion`` is strict.

    Example:
      >>> import jax.numpy as jnp, secondorder as so
      >>> so.tree.joined(jnp.bfloat16, jnp.float32).name
      'float32'
    """
    with jax.numpy_dtype_promotion("standard"):
        return jnp.result_type(*dtypes)


def accumulation_dtype(dtype: DTypeLike) -> jnp.dtype:
    """The dtype of sums over ``dtype``: itself, but at least float32.

    Example:
      >>> import jax.numpy as jnp, secondorder as so
      >>> so.tree.accumulation_dtype(jnp.bfloat16).name
      'float32'
    """
    return joined(dtype, jnp.float32)


def dtype(tree: Params) -> jnp.dtype:
    """The dtype of scalars that belong to a tree: norms, damping, gain ratios.

    Example:
      >>> import jax.numpy as jnp, secondorder as so
      >>> x = {"a": jnp.array([1.0, -2.0]), "b": jnp.array(2.0)}
      >>> so.tree.dtype(x).name
      'float32'
    """
    return joined(jnp.float32, *map(leaf_dtype, jax.tree.leaves(tree)))


def leaf_dtype(leaf: Any) -> jnp.dtype:
    """The dtype of a leaf as a JAX array: NumPy's float64 is float32 unless x64 is switched on.

    Example:
      >>> import jax.numpy as jnp, secondorder as so
      >>> so.tree.leaf_dtype(jnp.ones(2, jnp.float16)).name
      'float16'
    """
    if hasattr(leaf, "dtype"):
        return jax.dtypes.canonicalize_dtype(leaf.dtype)
    return jnp.result_type(leaf)


def together(*arrays: jax.Array) -> list[jax.Array]:
    """The arrays in their common dtype.

    Example:
      >>> import jax.numpy as jnp, secondorder as so
      >>> [a.dtype.name for a in so.tree.together(jnp.ones(2), jnp.ones(2, jnp.bfloat16))]
      ['float32', 'float32']
    """
    wide = joined(*(x.dtype for x in arrays))
    return [x.astype(wide) for x in arrays]


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
