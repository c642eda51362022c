"""Complex arrays as pairs of real ones."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from secondorder.tree._dtypes import is_complex


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
