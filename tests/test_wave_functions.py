"""Variational Monte Carlo with complex wave functions: the step is the formula, in float64.

Particles on a ring of sites, in a field: hops take a phase, so the ground state is complex.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest
from jax.flatten_util import ravel_pytree
from tolerances import assert_close, condition_of

import secondorder as so

pytestmark = pytest.mark.usefixtures("x64")
RNG = np.random.default_rng(0)
SITES, RATE, DAMPING = 12, 0.3, 1e-3

ANGLES = 2 * np.pi * np.arange(SITES) / SITES
PLACES = np.stack([np.cos(ANGLES), np.sin(ANGLES), np.cos(2 * ANGLES)], axis=1)
HOPS = -np.exp(0.4j) * np.roll(np.eye(SITES), 1, axis=0)
HAMILTONIAN = HOPS + HOPS.conj().T + np.diag(RNG.normal(size=SITES))


def modulus_and_phase(p):
    """A real network with two outputs."""
    size, phase = (jnp.tanh(PLACES @ p["w"] + p["b"]) @ p["v"]).T
    return jax.lax.complex(size, phase)


def pair(p):
    return jax.lax.complex(p["re"], p["im"])


def holomorphic(p):
    """A restricted Boltzmann machine with complex weights."""
    return jnp.sum(jnp.log(jnp.cosh(PLACES @ pair(p["w"]) + pair(p["b"]))), axis=1)


def not_holomorphic(p):
    """With an activation of each part."""
    hidden = PLACES @ pair(p["w"]) + pair(p["b"])
    hidden = jax.lax.complex(jnp.tanh(jnp.real(hidden)), jnp.tanh(jnp.imag(hidden)))
    return jnp.sum(hidden**2 + hidden, axis=1)


class Case(NamedTuple):
    log_psi: Callable  # parameters ↦ log ψ of every site
    params: dict


def pairs(width):
    real = lambda *shape: RNG.normal(size=shape) / 3
    both = lambda *shape: {"re": real(*shape), "im": real(*shape)}
    return {"w": both(3, width), "b": both(width)}


NETWORK = {
    name: RNG.normal(size=shape) / 2 for name, shape in (("w", (3, 3)), ("b", (3,)), ("v", (3, 2)))
}
CASES = {
    "modulus and phase": Case(modulus_and_phase, NETWORK),
    "holomorphic, in pairs": Case(holomorphic, pairs(2)),
    "not holomorphic, in pairs": Case(not_holomorphic, pairs(2)),
}
everyone = pytest.mark.parametrize("case", CASES.values(), ids=CASES)


def local_energies(log_psi):
    psi = jnp.exp(log_psi)
    return (HAMILTONIAN @ psi) / psi


def objective_of(log_psi, params, sites):
    """As the recipe has it, on samples of sites."""

    def centred(p):
        values = log_psi(p)[sites]
        return values - jnp.mean(values)

    energies = local_energies(log_psi(params))[sites]
    targets = centred(params) - 2 * (energies - jnp.mean(energies))
    return so.compose(so.squared_error(jax.lax.stop_gradient(targets)), centred)


def over_all_sites(log_psi, params):
    """The same with every site once, in the proportion of its ``|ψ|²``."""
    values = log_psi(params)
    shares = jax.lax.stop_gradient(jax.nn.softmax(2 * jnp.real(values)))
    mean = lambda x: jnp.sum(shares * x)
    roots = jnp.sqrt(SITES * shares)
    centred = lambda p: roots * (log_psi(p) - mean(log_psi(p)))
    energies = local_energies(values)
    targets = centred(params) - 2 * roots * (energies - mean(energies))
    return so.compose(so.squared_error(jax.lax.stop_gradient(targets)), centred)


def step_on(log_psi, params, sites):
    opt = so.natural_gradient(RATE, trust=DAMPING)

    @jax.jit
    def step(params):
        objective = objective_of(log_psi, params, sites)
        grads = jax.grad(objective)(params)
        return grads, opt.update(grads, opt.init(params), params, value_fn=objective)[0]

    return step(params)


def centred_rows(log_psi, params, sites):
    """``O − ⟨O⟩`` and ``E − ⟨E⟩`` of the samples: derivatives by the real parameters."""
    inner, x = oracles.on_vectors(log_psi, params)
    parts = lambda x: (jnp.real(inner(x)), jnp.imag(inner(x)))
    real, imag = jax.jit(jax.jacobian(parts))(x)
    rows = (np.asarray(real) + 1j * np.asarray(imag))[sites]
    energies = np.asarray(jax.jit(lambda p: local_energies(log_psi(p)))(params))[sites]
    return rows - rows.mean(0), energies - energies.mean()


@everyone
def test_gradient_and_metric_are_those_of_the_energy_and_of_the_fidelity(case):
    log_psi, params = case
    inner, x = oracles.on_vectors(log_psi, params)

    def energy(x):
        psi = jnp.exp(inner(x))
        return jnp.real(psi.conj() @ HAMILTONIAN @ psi) / jnp.real(psi.conj() @ psi)

    def distance(y):
        """``−log`` of the fidelity of ψ at x and at y: ``(y − x)ᵀ S (y − x)`` to second order."""
        one, other = jnp.exp(inner(x)), jnp.exp(inner(y))
        size = lambda psi: jnp.log(jnp.real(psi.conj() @ psi))
        overlap = one.conj() @ other
        return size(one) + size(other) - jnp.log(jnp.real(overlap) ** 2 + jnp.imag(overlap) ** 2)

    @jax.jit
    def found(params):
        objective = over_all_sites(log_psi, params)
        return jax.grad(objective)(params), so.dense(so.ggn(objective, params), params)

    grads, metric = found(params)
    assert_close(oracles.flat(grads), jax.jit(jax.grad(energy))(x), 10)
    assert_close(metric, jax.jit(jax.hessian(distance))(x) / 2, 10)


@everyone
@pytest.mark.parametrize("count", [10, 200], ids=["fewer samples", "more samples"])
def test_the_step_is_the_dense_formula(case, count):
    """``−α (S + λ I)⁻¹ g`` with ``g = 2 Re Cov(O*, E)`` and ``S = Re Cov(O*, O)``."""
    log_psi, params = case
    sites = np.random.default_rng(1).integers(0, SITES, count)
    rows, energies = centred_rows(log_psi, params, sites)
    g = 2 * np.real(rows.conj().T @ energies) / count
    metric = np.real(rows.conj().T @ rows) / count + DAMPING * np.eye(g.size)
    grads, step = step_on(log_psi, params, sites)
    assert_close(oracles.flat(grads), g, 10)
    assert_close(oracles.flat(step), -RATE * np.linalg.solve(metric, g), condition_of(metric))


@pytest.mark.parametrize("name", ["holomorphic, in pairs", "not holomorphic, in pairs"])
def test_the_complex_formula_is_the_step_on_pairs_where_log_psi_is_holomorphic(name):
    """``O = ∂ log ψ/∂w``, ``w = re + i im``: ``−α (S + λ I)⁻¹ g`` with nothing made real."""
    log_psi, params = CASES[name]
    sites = np.random.default_rng(2).integers(0, SITES, 200)
    leaf = lambda tree: isinstance(tree, dict) and "re" in tree
    whole = lambda tree: ravel_pytree(jax.tree.map(pair, tree, is_leaf=leaf))[0]
    slope = lambda part: centred_rows(
        lambda x: log_psi(jax.tree.map(lambda p, d: p | {part: d}, params, x, is_leaf=leaf)),
        jax.tree.map(lambda p: p[part], params, is_leaf=leaf),
        sites,
    )
    (by_re, energies), (by_im, _) = slope("re"), slope("im")
    rows = (by_re - 1j * by_im) / 2  # by w, with w* held
    g = 2 * rows.conj().T @ energies / len(sites)
    metric = rows.conj().T @ rows / len(sites) + DAMPING * np.eye(g.size)
    expected = -RATE * np.linalg.solve(metric, g)
    found = whole(step_on(log_psi, params, sites)[1])
    if name.startswith("not"):
        error = np.linalg.norm(found - expected) / np.linalg.norm(expected)
        assert error > 0.1
    else:
        kappa = np.linalg.cond(metric)
        assert_close(np.real(found), np.real(expected), kappa, np.max(np.abs(expected)))
        assert_close(np.imag(found), np.imag(expected), kappa, np.max(np.abs(expected)))
