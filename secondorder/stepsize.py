"""Step lengths along a direction: a learning rate, or Optax's zoom line search; weight decay."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from secondorder import meshes, tree
from secondorder.objectives._at_point import at_point
from secondorder.tree._gaps import masked_like

ROUNDING = 1e-6  # relative rise of a value that Optax's search ignores
STEPS = 25  # of a search
CUTS = 16  # tenths of a failed step that are tried

# Which leaves decay: a tree of bools, or of prefixes of the parameters', or a function that returns
# one; ``None`` for all of them.
Mask = optax.Params | Callable[[optax.Params], optax.Params] | None


def step_along(
    direction: optax.GradientTransformation,
    learning_rate: optax.ScalarOrSchedule | None,
    *,
    weight_decay: tree.Real | None = None,
    weight_decay_mask: Mask = None,
    first_guess: str = "one",
) -> optax.GradientTransformationExtraArgs:
    """``direction`` times a learning rate (or schedule); ``None`` for a line search.

    Args:
      direction: a transformation whose updates descend.
      learning_rate: a number, an Optax schedule, or ``None``.
      weight_decay: fraction of the parameters subtracted from the direction; ``None`` for none.
      weight_decay_mask: the leaves that decay; see :func:`decayed`.
      first_guess: the line search's first trial, see :func:`zoom`.
    """
    links = [direction]
    if weight_decay is not None:
        links.append(decayed(weight_decay, weight_decay_mask))
    if learning_rate is None:
        return optax.chain(*links, zoom(first_guess))
    return optax.chain(*links, optax.scale_by_learning_rate(learning_rate, flip_sign=False))


def decayed(weight_decay: tree.Real, mask: Mask = None) -> optax.GradientTransformation:
    """``d − w p``: weight decay apart from the curvature; a zero step (a rejection) stays zero.

    Args:
      weight_decay: w, a part of the parameters.
      mask: the leaves that decay: a tree of bools like the parameters (or a prefix of it), or a
        function ``params -> tree of bools``. ``None`` for all.
    """

    def update(updates, state, params: Any = None):
        moved = tree.max_abs(updates) > 0
        pull = lambda d, x: jnp.where(moved, d - jnp.asarray(weight_decay, d.dtype) * x, d)
        leaf = lambda d, x: pull(d, x).astype(d.dtype)
        below = lambda on, d, x: jax.tree.map(leaf, d, x) if on else d
        chosen = mask(params) if callable(mask) else True if mask is None else mask
        return jax.tree.map(below, chosen, updates, params), state

    return optax.GradientTransformation(lambda params: optax.EmptyState(), update)


def zoom(first_guess: str = "one") -> optax.GradientTransformationExtraArgs:
    """``optax.scale_by_zoom_linesearch`` that runs in at least float32 and ignores extra keywords.

    Optax's search has default-precision scalars in its loop and raises on unknown keywords, so it
    gets neither low-precision parameters nor other keywords. Its precision of a step size, 1e-5, is
    absolute, and it squares slopes, so values are scaled by the value at the start, and steps by
    the first trial. After ``STEPS`` it may end on a step that raises the value, as for a
    singular curvature with a direction 1e9 times too long: such a step is divided by ten until the
    value does not rise. A search that ends on a non-finite step, or without a step, gives zeros.

    Args:
      first_guess: the first trial: ``"one"`` for directions with a natural length (Newton);
        ``"keep"``, the last step size, for those without (the gradient); ``"learnt"`` for those
        with one from the second step on (quasi-Newton). The very first trial of the last two is
        Polyak's step, ``2|f| / |g·d|``, at most as long as the parameters: both follow any change
        of units.
    """
    search = optax.scale_by_zoom_linesearch(STEPS, initial_guess_strategy="one")

    def init(params):
        if not jax.tree.leaves(params):
            return optax.EmptyState()
        # Optax's first state has weakly typed counts, whose type would change once.
        start = search.init(tree.accumulator(tree.zeros_like(params)))
        return jax.tree.map(lambda x: jax.lax.convert_element_type(x, x.dtype), start)

    def update(
        updates, state, params=None, *, value=None, grad=None, value_fn: Any = None, **unused
    ):
        del unused
        if not jax.tree.leaves(updates):
            return updates, state
        value_fn = at_point(value_fn, "update")
        if value is None or grad is None:
            value, grad = jax.value_and_grad(value_fn)(params)
        dtype = tree.dtype(params)
        start, value = tree.accumulator(params), jnp.asarray(value, dtype)
        grad = masked_like(params, grad)
        if jax.tree.structure(grad) != jax.tree.structure(params):
            raise ValueError(
                "update got a grad of another tree than params. Around a line search leave "
                "optax.flatten out, since methods take any tree."
            )
        grad, step = tree.accumulator(grad), tree.accumulator(updates)
        guess = _first_trial(first_guess, step, state, params, value, grad)
        step = tree.scale(guess, step)
        unit = tree.power_of_two(jnp.maximum(jnp.abs(value), jnp.abs(tree.vdot(grad, step))))
        objective = lambda p: value_fn(tree.cast(p, params)).astype(dtype) / unit
        new_state: Any
        found, new_state = _searched(
            search, step, state, start, value / unit, tree.scale(1 / unit, grad), objective
        )
        found, new_state = _cut_until_lower(found, new_state, start, value / unit, objective)
        new_state = new_state._replace(
            learning_rate=guess * new_state.learning_rate,
            value=unit * new_state.value,
            grad=tree.scale(unit, new_state.grad),
        )
        found = tree.cast(found, updates)
        # After a zero step (a rejection, a batch of NaN) the search's state is left unchanged.
        sound = tree.all_finite((found, new_state.value, new_state.grad)) & (
            tree.max_abs(found) > 0
        )
        return (
            tree.where(sound, found, tree.zeros_like(found)),
            tree.where(sound, new_state, state),
        )

    return optax.GradientTransformationExtraArgs(init, update)


def _searched(search, step, state, start, value, grad, objective):
    """The search of Optax, which does not run on explicit axes, so it gets them as automatic."""

    def run(step, state, start, value, grad, *, value_fn=objective):
        return search.update(step, state, start, value=value, grad=grad, value_fn=value_fn)

    leaves = jax.tree.leaves(start)
    found = [s.mesh for s in map(meshes.explicit_sharding, leaves) if s is not None]
    if not found:
        return run(step, state, start, value, grad)
    everywhere = jax.sharding.NamedSharding(found[0], jax.sharding.PartitionSpec())
    of = lambda x: jax.tree.map(lambda y: meshes.explicit_sharding(y) or everywhere, x)
    explicit = jax.sharding.explicit_axes(objective, in_sharding=(of(start),))
    run = functools.partial(run, value_fn=explicit)
    automatic: Any = jax.sharding.auto_axes(run, out_sharding=of((step, state)))
    return automatic(step, state, start, value, grad)


def _cut_until_lower(step, state, start, value, objective):
    """The step of a search, or the first of its tenth, hundredth, … that does not raise the value.

    As in the search, a relative rise up to :data:`ROUNDING` does not count.
    """
    limit = value + ROUNDING * jnp.abs(value)

    def raises(carry):
        count, _, state = carry
        return ~(state.value <= limit) & jnp.isfinite(limit) & (count < CUTS)

    def cut(carry):
        count, step, state = carry
        step = tree.scale(0.1, step)
        value, grad = jax.value_and_grad(objective)(tree.add(start, step))
        looks = state.info._replace(num_linesearch_steps=state.info.num_linesearch_steps + 1)
        at = {"learning_rate": 0.1 * state.learning_rate, "value": value, "grad": grad}
        return count + 1, step, state._replace(**at, info=looks)

    _, step, state = jax.lax.while_loop(raises, cut, (0, step, state))
    return tree.where(state.value <= limit, step, tree.zeros_like(step)), state


def _first_trial(first_guess: str, step, state, params, value, grad) -> jax.Array:
    """The search's first trial, in units of the step; see :func:`zoom`."""
    one = jnp.ones((), value.dtype)
    if first_guess == "one":
        return one
    slope = jnp.abs(tree.vdot(grad, step)).astype(value.dtype)
    polyak = 2 * jnp.abs(value) / jnp.where(slope > 0, slope, 1)
    # Polyak's step is far too long where f has a minimum value far from zero near the start.
    reach, length = tree.norm(params), tree.norm(step)
    most = (reach / jnp.where(length > 0, length, 1)).astype(value.dtype)
    polyak = jnp.where(reach > 0, jnp.minimum(polyak, most), polyak)
    usable = (slope > 0) & (polyak > 0) & jnp.isfinite(polyak)
    later = state.learning_rate.astype(value.dtype) if first_guess == "keep" else one
    return jnp.where(jnp.isinf(state.value), jnp.where(usable, polyak, one), later)
