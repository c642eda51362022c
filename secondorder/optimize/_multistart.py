"""A search from several starts, and the distinct minima that it found."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from secondorder import tree
from secondorder.operators._dense import ravel, unravel
from secondorder.operators._jacobian import linearize
from secondorder.optimize._parameters import flattened, places
from secondorder.optimize._records import Status
from secondorder.optimize._solution import Solution
from secondorder.tree import Params


class Minima(NamedTuple):
    """The distinct minima that a fit with several starts found, the lowest first.

    Attributes:
      params: shaped like the fit's parameters, with an axis of the minima before; there are as many
        rows as starts, and those beyond the last minimum have the count 0.
      chi_square: their χ²; infinite beyond the last minimum.
      count: the number of starts that ended at each.

    Two ends are one minimum where the model differs between them by no more than the tolerance, so
    that a valley of undetermined parameters is one.

    Example:
      >>> import jax.numpy as jnp, secondorder as so
      >>> x = jnp.linspace(0.0, 6.0, 40)
      >>> wave = lambda p, x: jnp.sin(p["w"] * x)
      >>> starts = {"w": jnp.array([1.5, 2.5, 2.7])}
      >>> fit = so.curve_fit(wave, x, wave({"w": 2.6}, x), {"w": 0.5}, starts=starts)
      >>> round(float(fit.params["w"]), 3), fit.minima.count.sum().item() <= 4
      (2.6, True)
    """

    params: Params
    chi_square: jax.Array
    count: jax.Array


def stacked(starts: Params | dict[str, Any], params: Params) -> Params:
    """``params`` and after it the starts, along a new leading axis.

    Raises:
      ValueError: an unknown name, or arrays of several lengths.
    """
    leaves, structure = jax.tree.flatten(params)
    if isinstance(starts, dict):
        found = {}
        for name, value in flattened(starts):
            for leaf, entry in places(params, name, "starts"):
                if entry is not None:
                    raise ValueError(f"starts names {name}; pass starts of the whole array.")
                found[leaf] = value
    elif jax.tree.structure(starts) == structure:
        found = dict(enumerate(jax.tree.leaves(starts)))
    else:
        raise ValueError(
            "starts must be a tree like params whose arrays have one more leading axis, or a "
            f"dictionary of some of them by name, but it is {jax.tree.structure(starts)}."
        )
    lengths = {np.shape(value)[:1] for value in found.values()}
    fits = all(np.shape(value)[1:] == np.shape(leaves[i]) for i, value in found.items())
    if len(lengths) != 1 or lengths == {()} or not fits:
        shapes = [np.shape(value) for value in found.values()]
        raise ValueError(
            "starts must have the shapes of params behind one common leading axis, but they are "
            f"{shapes} for {[np.shape(leaves[i]) for i in found]}."
        )
    (count,) = lengths.pop()

    def stack(i: int, x: Any) -> jax.Array:
        rest = jnp.broadcast_to(x, (count, *np.shape(x))) if i not in found else found[i]
        return jnp.concatenate([jnp.asarray(x)[None], jnp.asarray(rest, tree.leaf_dtype(x))])

    return jax.tree.unflatten(structure, [stack(i, x) for i, x in enumerate(leaves)])


def best_of(
    search: Callable[[Params], Solution], residual: Callable, whole: Callable, starts: Params
) -> tuple[Solution, Minima]:
    """The lowest solution from several starts, and all minima.

    Args:
      search: free parameters ↦ solution.
      residual, whole: functions of the free parameters.
    """
    found = jax.vmap(search)(starts)
    ended = (found.status == Status.CONVERGED.value) | (
        found.status == Status.LIMIT_OF_PRECISION.value
    )
    sound = jnp.isfinite(found.value) & (found.status != Status.NONFINITE.value)
    order = jnp.argsort(jnp.where(sound, found.value, jnp.inf))
    solution = jax.tree.map(lambda x: x[order[0]], found)

    params = jax.tree.map(lambda x: x[order], found.params)
    value, ended = found.value[order], (ended & sound)[order]
    same = _same(residual, params, value) & ended[:, None] & ended[None, :]
    first = jnp.where(ended, jnp.argmax(same, axis=0), value.size)  # the lowest one of its kind
    count = jnp.sum(first[None, :] == jnp.arange(value.size)[:, None], axis=1)
    place = jnp.argsort(count == 0, stable=True)
    chi = jnp.where(count > 0, 2 * value, jnp.inf)
    every = jax.vmap(whole)(jax.tree.map(lambda x: x[place], params))
    return solution, Minima(every, chi[place], count[place])


def _same(residual: Callable, params: Params, value: jax.Array) -> jax.Array:
    """Whether two points are one minimum: by the change of the residual between them."""
    eps = jnp.finfo(value.dtype).eps

    def row(one: tuple[Params, jax.Array]) -> jax.Array:
        start, own = one
        at = linearize(residual, start)
        like = lambda v: tree.cast(unravel(v, start), start)
        change = lambda other: tree.norm(at.mv(like(ravel(other) - ravel(start))))
        size = tree.norm(at.mv(start))
        near = jax.vmap(change)(params) <= 0.03 * jnp.sqrt(2 * own) + eps**0.4 * size
        return near & (jnp.abs(value - own) <= 0.01 * own + eps**0.8 * size**2)

    return jax.lax.map(row, (params, value))
