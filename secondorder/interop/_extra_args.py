"""Filter of the extra arguments of an Optax transformation's ``update``."""

from __future__ import annotations

import optax


def only_extra_args(
    tx: optax.GradientTransformation, *names: str
) -> optax.GradientTransformationExtraArgs:
    """``tx`` with only the named extra arguments of ``update``; the others are dropped.

    Optax's line searches raise on unknown keywords. Wrapped, they can be chained with methods that
    take more keywords; so can other transformations that do not accept ``value_fn``.

    Args:
      tx: any Optax transformation.
      names: the keywords to pass on, e.g. ``"value", "grad", "value_fn"``.

    Example:
      >>> import optax, secondorder as so
      >>> search = optax.scale_by_backtracking_linesearch(max_backtracking_steps=15)
      >>> search = so.only_extra_args(search, "value", "grad", "value_fn")
      >>> opt = optax.chain(so.newton(learning_rate=1.0), search)
    """
    inner = optax.with_extra_args_support(tx)

    def update(updates, state, params=None, **extra):
        kept = {name: extra[name] for name in names if name in extra}
        return inner.update(updates, state, params, **kept)

    return optax.GradientTransformationExtraArgs(inner.init, update)
