"""The right value or an honest status: no success at a wrong point, and the value is f there."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cases import with_slow
from contract.hard import BOXED, FREE, OPEN, PROBLEMS, Data, Hard, improved, residual, value
from contract.table import METHODS
from tolerances import rounding

import secondorder as so

MAX_STEPS = 300
#: One of a kind, whose programs are compiled by each run of the tests; the others are slow.
QUICK = ("bfgs", "levenberg_marquardt", "trust_region_newton")
#: Methods with a rate or a schedule of their own, made for training: they end at their step limit.
TRAINING = {
    *("sophia", "sophia_of_the_hessian", "adahessian", "soap", "shampoo", "shampoo_of_bases"),
    *("kl_soap", "kl_shampoo"),
}
SOLVING = [name for name in METHODS if name not in TRAINING]
#: The layout of layers is read of a model without bounds, which enter another program.
UNBOUNDED = {name for name in SOLVING if "example" in METHODS[name].options}
#: A damping of one's own is in the units of the parameters, which these problems mix.
CHANGED = {"newton": {"damping": 0.0}, "newton_of_a_fixed_rate": {"damping": 0.0}}


def quick_or_slow(names):
    return pytest.mark.parametrize(("name",), with_slow(names, lambda name: name in QUICK))


def objective(data: Data) -> so.Objective:
    return so.sum_of_squares(lambda p: residual(data, p))


def start_of(problem: Hard):
    return jnp.asarray(problem.start, float)


@functools.lru_cache(maxsize=1)
def solver(name: str, boxed: bool):
    """One program of a method for all problems without bounds, one for all with."""
    example = objective(jax.tree.map(jnp.asarray, OPEN["linear"].data))
    options = {"example": example} if name in UNBOUNDED else {}
    method = METHODS[name].make(**options, **CHANGED.get(name, {}))

    @jax.jit
    def solve(data, start, bounds):
        solution = so.minimize(
            objective(data), start, method, max_steps=MAX_STEPS, bounds=bounds if boxed else None
        )
        return solution.params, solution.value, solution.success, solution.status

    return solve


def solve(name: str, problem: Hard):
    data, bounds = jax.tree.map(lambda x: jnp.asarray(x, float), (problem.data, problem.bounds))
    return solver(name, problem.bounds is not FREE)(data, start_of(problem), bounds)


def faults(name: str, problems) -> dict[str, str]:
    """By problem, what a solve got wrong."""
    found = {}
    for label, problem in problems.items():
        params, reported, success, status = jax.tree.map(np.asarray, solve(name, problem))
        lower, upper = problem.bounds
        begun = value(problem, np.clip(problem.start, lower, upper))
        here, status = value(problem, params), so.Status(int(status)).name
        least = improved(problem, params)
        # Rounded parameters move residuals; what that makes of a value is no fault of the method.
        noise = rounding(1e2, here, params.dtype) + rounding(1e2, 1.0, params.dtype) ** 2 * begun
        if not np.all(
            (lower.astype(params.dtype) <= params) & (params <= upper.astype(params.dtype))
        ):
            found[label] = f"{status} outside the bounds, {params}"
        elif not abs(reported - here) <= noise:
            found[label] = f"{status}, value {reported} where f is {here}"
        elif success and not here <= 1.01 * least + 1e-6 * begun + noise:
            found[label] = f"{status} at {here}, from where {least} is reached"
    return found


@pytest.mark.quick(1)
@quick_or_slow(SOLVING)
def test_success_is_a_minimum_and_the_value_is_that_of_the_parameters(name):
    assert not faults(name, OPEN)


@pytest.mark.quick(1)
@quick_or_slow([name for name in SOLVING if name not in UNBOUNDED])
def test_success_within_bounds_is_a_minimum_there_and_the_value_that_of_the_parameters(name):
    assert not faults(name, BOXED)


@pytest.mark.slow
@pytest.mark.parametrize("name", SOLVING)
def test_the_same_holds_in_float64(name, x64):
    solver.cache_clear()
    assert not faults(name, OPEN if name in UNBOUNDED else PROBLEMS)
    solver.cache_clear()


#: How many of all problems the methods for solving reach the minimum of, and report that they did.
@pytest.mark.slow
@pytest.mark.parametrize("name, least", [("levenberg_marquardt", 26), ("trust_region_newton", 22)])
def test_the_defaults_solve_nearly_all_of_them(name, least):
    solved = [label for label, p in PROBLEMS.items() if solve(name, p)[2]]
    assert len(solved) >= least, sorted(set(PROBLEMS) - set(solved))
