# %% [markdown]
# # Preconditioning: what K-FAC's inverse is worth to conjugate gradients
#
# A Hessian-free step solves (G + λI) d = −g by products with the Gauss-Newton matrix G, each about
# 4/3 of a gradient. Conjugate gradients first find what lies along the greatest eigenvalues, and
# need ever more products for the rest: the weaker λ, the more. With an approximate inverse M⁻¹ they
# see M⁻¹(G + λI) instead, and if M is near, its eigenvalues are alike and few products will do.

# %%
import jax
import jax.numpy as jnp
import optax

import secondorder as so
from experiments.problems import byte_transformer
from experiments.studies import at_most, show
from secondorder import curvature, solvers, tree, trust

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
diagonal, layers = curvature.empirical_diagonal(), curvature.layerwise(objective)
KINDS = {"none": None, "per-example squares (Martens)": diagonal, "K-FAC": layers}
BUDGET, EXACT = at_most(300), curvature.exact(so.ggn)


def solver(kind):
    """``(params, λ, model's value to stop at) ↦`` half the slope along the step, and products."""
    model = curvature.preconditioned(EXACT, KINDS[kind]) if KINDS[kind] else EXACT

    def solve(params, damping, stop_at):
        slope = jax.grad(objective)(params)
        enough = lambda progress: progress.model[progress.iterations] <= stop_at
        found = solvers.cg(BUDGET, enough, solvers.known_inverse() if KINDS[kind] else None)
        method = so.scale_by_curvature(model, found, trust.fixed(damping))
        step, state = method.update(slope, method.init(params), params, value_fn=objective)
        unit = tree.norm(slope) ** 2  # in which a stopping rule sees the model
        return tree.vdot(slope, step) / (2 * unit), so.diagnostics(state)["iterations"]

    return jax.jit(solve)


solve = {kind: solver(kind) for kind in KINDS}
for damping in (0.1, 0.01, 0.001):
    least, _ = solve["K-FAC"](params, damping, -jnp.inf)
    rows = []
    for kind in KINDS:
        counts = [int(solve[kind](params, damping, part * least)[1]) for part in (0.9, 0.99)]
        rows.append([kind, *(n if n < BUDGET else "-" for n in counts)])
    show([f"λ = {damping:g}, preconditioner", "products to 90 %", "to 99 %"], rows)
