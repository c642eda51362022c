"""Layerwise Gauss-Newton: the Gauss-Newton system of each layer, solved by products."""

from __future__ import annotations

import functools
from collections.abc import Callable, Hashable

import optax

from secondorder import curvature, settings, solvers
from secondorder.operators import by_module, ggn
from secondorder.solvers import Solver, cg, relative_progress
from secondorder.transform import scale_by_curvature
from secondorder.tree import Real
from secondorder.trust import Trust, damping
from secondorder.trust._policy_of import policy_of


@settings.checked()
def layerwise_gauss_newton(
    *,
    trust: Trust | Real = 0.1,
    max_cg_steps: int = 50,
    solver: Solver | None = None,
    layer_of: Callable[[tuple], Hashable] = by_module,
) -> optax.GradientTransformationExtraArgs:
    """``Δ_l = −(G_ll + λ I)⁻¹ g_l`` for each layer l; the step is ``αΔ + μδ``.

    ``G_ll`` is the Gauss-Newton matrix with all other layers fixed: exact within a layer, without a
    Kronecker model or samples, and zero between layers. α and μ minimise the exact quadratic model
    of the whole network over ``Δ`` and the last step ``δ``; the step is halved while the objective
    falls, λ follows the gain ratio, and a step that does not decrease the objective is rejected. No
    matrix is kept.

    Args:
      trust: a policy that gives a damping, or the λ that ``trust.damping(λ, halvings=10)`` starts
        from, in the units of the curvature. ``trust.damping(λ)`` takes a step whole or not at all.
      max_cg_steps: largest number of products of each layer a step.
      solver: solver of a layer's system instead of conjugate gradients: ``solvers.prox_linear()``,
        with the exact loss after the linearised model; ``solvers.sample_space()``, exact in the
        space of the samples; ``solvers.direct()``, exact for small layers.
      layer_of: a leaf's path in the tree of parameters ↦ the name of its layer. By default leaves
        with the same parent, such as kernel and bias, are one layer; for a flat dictionary that is
        all of them, and ``operators.by_leaf`` makes each leaf a layer.

    Raises:
      TypeError: at update, a plain function as ``value_fn``: it takes an objective, as ``compose``,
        ``per_example`` or ``sum_of_squares`` make one.
      ValueError: a trust policy that gives no damping.

    Example:
      >>> import jax, jax.numpy as jnp, secondorder as so
      >>> x, y = jax.random.normal(jax.random.key(0), (32, 3)), jnp.ones((32, 2))
      >>> net = lambda p: jnp.tanh(x @ p["in"]["w"]) @ p["out"]["w"] + p["out"]["b"]
      >>> p = {"in": {"w": jnp.eye(3)}, "out": {"b": jnp.zeros(2), "w": jnp.ones((3, 2))}}
      >>> f = so.compose(so.squared_error(y), net)
      >>> bool(so.minimize(f, p, so.layerwise_gauss_newton(), tol=1e-3).value < 1e-5)
      True

    Source: Abreu, Vyas, Kakade and Morwani (2025); Martens and Grosse (2015) for α and μ.
    """
    inner = cg(max_cg_steps, relative_progress()) if solver is None else solver
    model = curvature.preconditioned(curvature.exact(ggn), curvature.block_diagonal(ggn, layer_of))
    own = functools.partial(damping, halvings=10)
    policy = policy_of(trust, own, "layerwise_gauss_newton", "damping")
    return scale_by_curvature(
        model, solvers.optimal_scaling(solvers.block_diagonal(inner, layer_of)), policy
    )
