"""How many kernels a solve compiles: each costs time at compiling and at every call."""

import re

import jax
import jax.numpy as jnp
import pytest

import secondorder as so

X = jnp.linspace(0.0, 4.0, 40)
START = jnp.array([1.0, 1.0, 0.0])
KERNEL = re.compile(r"= .*\b(fusion|custom-call)\(")


def model(p, x):
    return p[0] * jnp.exp(-p[1] * x) + p[2]


def value(p, y):
    return jnp.sum((model(p, X) - y) ** 2)


# Of three parameters and forty points in float64, by JAX 0.10.2 under the flags of these tests; the
# tenth above it is for other versions.
SOLVES = {
    "levenberg_marquardt": (lambda y: so.least_squares(lambda p: model(p, X) - y, START), 112),
    "curve_fit": (lambda y: so.curve_fit(model, X, y, START), 112),
    "bfgs": (lambda y: so.minimize(lambda p: value(p, y), START, so.bfgs()), 139),
    "lbfgs": (lambda y: so.minimize(lambda p: value(p, y), START, so.lbfgs()), 141),
    "trust_region_newton": (lambda y: so.minimize(lambda p: value(p, y), START), 97),
}


@pytest.mark.quick(2)
@pytest.mark.parametrize("name", SOLVES)
def test_a_small_solve_compiles_few_kernels(name, x64, record_property):
    solve, counted = SOLVES[name]
    text = jax.jit(lambda y: solve(y).params).lower(jnp.ones(40)).compile().as_text()
    kernels = sum(bool(KERNEL.search(line)) for line in text.splitlines())
    record_property("kernels", kernels)
    print(f"{name}: {kernels} kernels")
    assert kernels <= 1.1 * counted
