# %% [markdown]
# # Points: a network is wrong between those that stay
#
# Burgers' equation, u_t + u u_x = ν u_xx with ν = 0.01/π, by a network that has the start and equal
# ends by construction, u = −sin πx + t N(t, cos πx, sin πx), 941 parameters in float64. By t = 0.4
# there is a front at x = 0, some hundredth wide. The error is that of u in L2, relative, against
# Cole and Hopf's solution.

# %%
import secondorder as so
from experiments.problems import burgers_by_residual as burgers
from experiments.studies import at_most, show


def table(label, runs, each):
    """Value and error of each run, at multiples of so many steps and at the end."""
    found = {name: list(run) for name, run in runs.items()}
    rows = []
    for k, (steps, *_) in enumerate(last := next(iter(found.values()))):
        if steps % each == 0 or k == len(last) - 1:
            pairs = [f"{run[k][1]:.0e}, {run[k][2]:.1e}" for run in found.values()]
            rows.append([f"{steps}", *pairs])
    show([f"{label}: steps", *(f"{name}: value, error" for name in found)], rows)


NATURAL = so.natural_gradient()


def trained(count, seed, renewed=None, method=NATURAL, steps=400):
    return burgers.train(method, count, seed, at_most(steps), renewed)


# %% [markdown]
# The natural gradient at its defaults, on points that stay and on points that are drawn anew every
# 25 steps. The network fits those that stay, and the error does not follow the value.

# %%
table("drawn uniformly", {"4,000, kept": trained(4_000, 0)}, 100)
table("drawn uniformly", {"4,000 anew": trained(4_000, 0, burgers.anew)}, 100)

# %% [markdown]
# Drawn anew where the residual is large, with a density of one plus its size over its mean; by the
# natural gradient, and by Levenberg-Marquardt with a search, which works on J instead of JᵀJ.

# %%
searching = so.levenberg_marquardt(trust=so.trust.line_search())
follow = lambda seed, *method: trained(8_000, seed, burgers.by_residual, *method)
seeds = {f"seed {seed}": follow(seed) for seed in range(3)}
table("8,000 by residual", {**seeds, "Levenberg-Marquardt, seed 0": follow(0, searching)}, 100)
