# %% [markdown]
# # A network: fewer steps, each more expensive
#
# The loss of a network is not convex: its Hessian has negative eigenvalues, along which Newton's
# step climbs. The Gauss-Newton matrix JᵀMJ keeps the bend of the loss and drops that of the
# network, so it is never indefinite. Products with it cost about two gradients; solving with it
# costs many products. What is that worth?

# %%
import jax
import jax.numpy as jnp
import numpy as np

import secondorder as so
from experiments.problems import tanh_network
from experiments.studies import race, show

runs = race("tanh-network", ["adam", "lbfgs", "newton-cg", "hessian-free", "gauss-newton"])

# %% [markdown]
# The eigenvalues at the start: of the Hessian, and of what replaces it.

# %%
problem = tanh_network.PROBLEM
data = {name: jnp.asarray(array) for name, array in problem.load().items()}
objective = tanh_network.objective(next(problem.stream(data, 0)))
params = problem.init(jax.random.key(0), data)
rows = []
for name, matrix in (("Hessian", so.hessian), ("Gauss-Newton", so.ggn)):
    bends = np.linalg.eigvalsh(np.asarray(so.dense(matrix(objective, params), params), np.float64))
    small = 1e-5 * bends[-1]  # what float32 tells from zero
    rows.append([name, bends[0], bends[-1], np.sum(bends < -small), np.sum(abs(bends) <= small)])
show(["matrix", "least eigenvalue", "greatest", "negative", "zero to rounding"], rows)

# %% [markdown]
# What a step costs, and what it gains: the loss after the same number of gradient-equivalents.

# %%
budgets = [30, 100, 300]
rows = []
for name, run in runs.items():
    spent, value = run.columns["gradient_equivalents"], run.columns["value"]
    after = [value[np.flatnonzero(spent <= budget)[-1]] for budget in budgets]
    rows.append([name, *after, 1e3 * run.columns["seconds"][-1] / run.columns["step"][-1]])
show(["optimizer", *(f"loss after {b} gradients" for b in budgets), "ms a step"], rows)
