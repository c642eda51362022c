# %% [markdown]
# # A convex problem: what the Hessian knows that the gradient does not
#
# The gradient says which way is down, and nothing of how far. Along a direction in which the loss
# bends strongly a step has to be short; along one in which it hardly bends the same step gets
# nowhere. One learning rate serves the strongest bend, so gradient descent waits for the weakest:
# about log(1/ε) · κ/2 steps, κ being the ratio of the two. Newton's step H⁻¹g divides by each
# bend.

# %%
import jax
import jax.numpy as jnp
import numpy as np

import secondorder as so
from experiments.problems import logistic
from experiments.studies import race, show

runs = race("logistic", ["gradient-descent", "adam", "lbfgs", "newton", "newton-cg"])

# %% [markdown]
# How much it bends, and where: the Hessian is small enough here to be looked at.

# %%
problem = logistic.PROBLEM
with jax.enable_x64(True):
    data = {name: jnp.asarray(array) for name, array in problem.load().items()}
    params = problem.init(jax.random.key(0), data)
    objective = logistic.objective(next(problem.stream(data, 0)))
    bends = np.linalg.eigvalsh(so.dense(so.hessian(objective, params), params))
show(["of the Hessian at the start", ""], [
    ["least eigenvalue", bends[0]],
    ["greatest", bends[-1]],
    ["their ratio κ", bends[-1] / bends[0]],
])  # fmt: skip

# %% [markdown]
# Newton near the minimum: the number of correct digits doubles with each step, because what the
# quadratic model leaves out is of the square of the distance. The order is the slope between
# logarithms of one error and the next: 1 for gradient descent, 2 for Newton.

# %%
rows = []
for name in ("gradient-descent", "newton", "newton-cg"):
    errors = runs[name].columns["grad_norm"]
    errors = errors[(errors > 1e-13) & (errors < 0.1)]  # near the minimum, above rounding
    gains = np.diff(np.log(errors))
    rows.append([name, len(errors), gains[-1] / gains[-2] if len(gains) > 1 else np.nan])
show(["optimizer", "steps from ‖g‖ = 0.1 to the end", "order of the last"], rows)
