"""The policy of a method, from its ``trust=``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import optax

from secondorder import trust
from secondorder.trust._base import Trust

# Policies that fit a method, by the kind of scalar that its solver reads.
POLICIES = {
    "damping": ("trust.damping()", "trust.line_search()"),
    "radius": ("trust.radius()", "trust.probed()"),
    "cubic": ("trust.cubic()",),
}
NAMES = ("fixed", "damping", "line_search", "radius", "probed", "cubic")


def policy_of(
    given: Trust | optax.ScalarOrSchedule | None, own: Callable[[Any], Trust], user: str, *fit: str
) -> Trust:
    """The policy of a method's ``trust``: the given one, or the method's own from a number.

    Args:
      given: a :class:`Trust`, or the start of the method's own policy.
      own: the method's own policy, such as :func:`radius`.
      user: the method, for messages.
      fit: the kinds of scalar that the method has a solver for; ``trust.fixed`` always fits.

    Raises:
      TypeError: a name, or a policy that was not called.
      ValueError: a policy of another kind.
    """
    name = given if isinstance(given, str) else getattr(given, "__name__", "")
    if isinstance(given, str) or (name and given is getattr(trust, name, None)):
        known = f"secondorder.trust.{name}()" if name in NAMES else "secondorder.trust.fixed(0.1)"
        raise TypeError(
            f"{user} got trust={name}; pass a policy, such as {known}, or a number, which starts "
            "the method's own policy."
        )
    if not isinstance(given, Trust):
        try:
            return own(given)
        except (TypeError, ValueError) as error:
            message = f"{user} got trust={given!r}, where its own policy starts. {error}"
            raise type(error)(message) from None
    if given.gives not in ("any", *fit):
        known = ", ".join(["a number", *(name for kind in fit for name in POLICIES[kind])])
        raise ValueError(
            f"{user} takes {known} or trust.fixed() as trust, but got a policy whose {given.gives} "
            "follows the outcome of steps. Pass one of these."
        )
    return given
