"""Types of trees and of numbers beside them."""

from __future__ import annotations

from typing import Any

import jax

Params = Any  # a pytree of floating-point arrays
Scalar = jax.typing.ArrayLike
Real = float | jax.Array  # a setting: a number, or an injected hyperparameter
Count = int | jax.Array
