"""The path that a step begins: ``α d + ½ α² a + ⅙ α³ b + ...``, along which residuals shrink.

The step solves ``J d = −r`` in the damped sense; each further term solves the same system for the
next derivative of the model's outputs along the path so far, and so cancels it. Along the whole
path residuals are ``(1 − α) r`` to the order of its terms, however the model bends.

Source: Transtrum and Sethna (2012) for the second order, equations 9 and 15.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp

from secondorder.tree import Params

MILD = 0.75  # the longest second term, in lengths of the step, at which both are trusted


def path(
    step: jax.Array, order: int, following: Callable, own: Callable[[jax.Array], Params]
) -> tuple[jax.Array, ...]:
    """``d, a, b, ...``, as many as the order, flat; zero those that are too long or not finite.

    Args:
      step: ``d``, flat, in the coordinates that lengths are measured in.
      order: of the path, 1 for the step alone.
      following: the path so far ↦ its next term, flat.
      own: flat ↦ parameters.
    """
    length, terms = jnp.linalg.norm(step), (step,)
    for k in range(2, order + 1):
        x = following(tuple(map(own, terms)))
        size = jnp.linalg.norm(x)
        # A comparison with NaN is false, so a bend that is not finite bends nothing.
        sound = size <= MILD * length if k == 2 else jnp.isfinite(size)
        terms = *terms, jnp.where(sound, x, 0)
    return terms
