# %% [markdown]
# # A fit: second derivatives for the price of first ones
#
# A sum of squares ½‖r(x)‖² has the Hessian JᵀJ + Σ rᵢ∇²rᵢ. Where the residuals r are small, or
# nearly linear, the second part hardly counts, and JᵀJ needs first derivatives alone: J is the
# Jacobian, one row a measurement. That is Gauss-Newton; Levenberg-Marquardt adds λ and shortens
# the step where the linear model of r is not to be trusted.

# %%
import jax
import jax.numpy as jnp
import numpy as np

import secondorder as so
from experiments.problems import curve_fit
from experiments.studies import race, show

runs = race("curve-fit", ["adam", "lbfgs", "newton", "gauss-newton", "levenberg-marquardt"])

# %% [markdown]
# Why first-order methods starve here: the parameters live on scales that differ by thousands. The
# singular values of J say how far a parameter vector moves the curve; their ratio, squared, is
# what gradient descent has to work against.

# %%
problem = curve_fit.PROBLEM
with jax.enable_x64(True):
    data = {name: jnp.asarray(array) for name, array in problem.load().items()}
    objective = curve_fit.objective(next(problem.stream(data, 0)))
    found = so.minimize(objective, problem.init(jax.random.key(0), data), so.levenberg_marquardt())
    matrices = so.hessian(objective, found.params), so.ggn(objective, found.params)
    hessian, ggn = (np.asarray(so.dense(each, found.params)) for each in matrices)
    singular = np.sqrt(np.linalg.eigvalsh(ggn))
show(["at the fit", ""], [
    ["greatest singular value of J", singular[-1]],
    ["least", singular[0]],
    ["their ratio squared", (singular[-1] / singular[0]) ** 2],
])  # fmt: skip

# %% [markdown]
# Where the residuals do not vanish, the part of the Hessian H that is left out stays. A
# Gauss-Newton step then multiplies the error by I − (JᵀJ)⁻¹H: by the same factor each time, the
# greatest eigenvalue of that matrix. Newton's error is squared. The gradient's norm, over that of
# the step before:

# %%
left = np.linalg.eigvals(np.eye(len(ggn)) - np.linalg.solve(ggn, hessian))
rows = [["as the matrix says, for Gauss-Newton", "-", "-", "-", np.max(np.abs(left))]]
for name in ("gauss-newton", "levenberg-marquardt", "newton"):
    norms = runs[name].columns["grad_norm"]
    rows.append([name, len(norms) - 1, *(norms[1:] / norms[:-1])[-3:]])
show(["optimizer", "steps in all", "third last", "last but one", "last"], rows)
