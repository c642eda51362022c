# %% [markdown]
# # Preconditioning: what K-FAC's inverse is worth to conjugate gradients
#
# A Hessian-free step solves (G + λI) d = −g by products with the Gauss-Newton matrix G, each 4/3 of
# a gradient. Conjugate gradients find what lies along the greatest eigenvalues first; the weaker λ,
# the more they need for the rest. With an approximate inverse M⁻¹ they see M⁻¹(G + λI), and if M is
# near, its eigenvalues are alike and few products will do.

# %%
import jax
import jax.numpy as jnp
import optax

import secondorder as so
from experiments.problems import byte_transformer
from experiments.studies import at_most, show

data = {name: jnp.asarray(array) for name, array in byte_transformer.load().items()}
params = byte_transformer.init(jax.random.key(0), data)

# %% [markdown]
# A transformer, a little trained by AdamW, and the system of one batch of 64 windows there.

# %%
adamw, stream = optax.adamw(3e-3), byte_transformer.PROBLEM.stream(data, 0)
state = adamw.init(params)
gradient = jax.jit(lambda params, batch: jax.grad(byte_transformer.objective(batch))(params))
for _ in range(at_most(50)):
    updates, state = adamw.update(gradient(params, next(stream)), state, params)
    params = optax.apply_updates(params, updates)
objective = byte_transformer.objective(next(stream))

# %% [markdown]
# How far a solve has got is the part of the model's decrease that it has: of ½ g·d at the solution
# d, which many products find. Stopped at 90 % and at 99 % of it:

# %%
exact = so.exact(so.ggn)
diagonal, layers = so.curvature.empirical_diagonal(), so.curvature.layerwise(objective)
NEAR = {"none": None, "per-example squares (Martens)": diagonal, "K-FAC": layers}


def descent(kind, params, damping, stop_at):
    """The model's value after the step, for a slope of length 1, and the products it took."""
    model = so.curvature.preconditioned(exact, NEAR[kind]) if NEAR[kind] else exact
    inverse = so.solvers.known_inverse() if NEAR[kind] else None
    cg = so.solvers.cg(at_most(300), lambda seen: seen.model[seen.iterations] <= stop_at, inverse)
    method = so.scale_by_curvature(model, cg, so.trust.fixed(damping))
    slope = jax.grad(objective)(params)
    step, state = method.update(slope, method.init(params), params, value_fn=objective)
    value = optax.tree.vdot(slope, step) / 2 / optax.tree.norm(slope) ** 2
    return value, so.diagnostics(state)["iterations"]


solve = jax.jit(descent, static_argnums=0)
for damping in (0.1, 0.01, 0.001):
    least, _ = solve("K-FAC", params, damping, -jnp.inf)
    count = lambda kind, part, at=damping, to=least: int(solve(kind, params, at, part * to)[1])
    rows = [[kind, *(count(kind, part) for part in (0.9, 0.99))] for kind in NEAR]
    show([f"λ = {damping:g}, preconditioner", "products to 90 %", "to 99 %"], rows)
