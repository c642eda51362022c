"""Shampoo: the published steps, from fixed gradients; blocks, and bases that follow."""

import jax
import numpy as np
import optax
import pytest
from tolerances import assert_close, condition_of
from training import fixed_gradients, steps_along

import secondorder as so


def power(matrix, p):
    values, vectors = np.linalg.eigh(matrix)
    return vectors @ np.diag(np.maximum(values, 0) ** p) @ vectors.T


def precondition(gram, g, eps, sides, exponent):
    """``⊗ (ε I + Gᵢ)^-p g``, p being 1/2k; for a vector, its diagonal."""
    if not any(sides):
        return g / np.sqrt(gram + eps)
    for i, side in enumerate(sides):
        if side:
            p = 1 / (2 * sum(sides)) if exponent is None else exponent
            root = power(gram[i] + eps * np.eye(len(gram[i])), -p)
            g = np.moveaxis(np.tensordot(root, g, axes=(1, i)), 0, i)
    return g


def reference(
    w, grads, *, lr, b1, b2, eps, graft, sides=None, sample_every=1, refresh_every=1, exponent=None
):
    """Gupta et al. (2018), algorithm 2, and Anil et al. (2020), algorithm I, in NumPy.

    Averages are corrected for bias, as in Shi et al. (2023).
    """
    w, rank = w.copy(), w.ndim
    sides = [rank > 1] * rank if sides is None else sides
    gram = [np.zeros((d, d)) for d in w.shape] if any(sides) else np.zeros_like(w)
    d, v, m, p = np.zeros_like(w), np.zeros_like(w), np.zeros_like(w), np.zeros_like(w)
    keep, add, count = *((1, 1) if b2 == 1 else (b2, 1 - b2)), 0
    for t, g in enumerate(grads):
        if t % sample_every == 0:
            count += 1
            if any(sides):
                for i in range(rank):
                    others = [j for j in range(rank) if j != i]
                    gram[i] = keep * gram[i] + add * np.tensordot(g, g, axes=(others, others))
            else:
                gram = keep * gram + add * g * g
        if t % refresh_every == 0 or not any(sides):
            mass = 1 if b2 == 1 else 1 - b2**count
            stale = [x / mass for x in gram] if any(sides) else gram / mass
        d, v = d + g * g, 0.99 * v + 0.01 * g * g
        adam = g / (np.sqrt(v / (1 - 0.99 ** (t + 1))) + 1e-8)
        p = b1 * p + (1 - b1) * precondition(stale, g, eps, sides, exponent)
        grafts = {"adam": adam, "adagrad": g / np.sqrt(d), "sgd": g, None: 0}
        m = b1 * m + (1 - b1) * grafts[graft]
        length = 1 if graft is None else np.linalg.norm(m) / np.linalg.norm(p)
        w = w - lr * length * p
        yield w


def condition(grads, eps):
    """No less than that of ``ε I + Gᵢ``, whose traces are the sum of all squares."""
    return 1 + sum(np.sum(g**2) for g in grads) / eps


ADAGRAD = optax.scale_by_rss(initial_accumulator_value=0.0, eps=0.0)
GRAFTS = {"sgd": optax.identity(), None: None, "adagrad": ADAGRAD}
SHAPES = {"matrix": (4, 6), "kernel": (3, 2, 4), "vector": (5,), "scalar": ()}


@pytest.mark.quick(2)
@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(
    "settings",
    [
        {"b1": 0.0, "b2": 1.0, "eps": 1e-2, "graft": None},  # as first published
        {"b1": 0.9, "b2": 0.99, "eps": 1e-3, "graft": "adam", "exponent": 0.5},
        {"b1": 0.9, "b2": 1.0, "eps": 1e-3, "graft": "adagrad"},
        {"b1": 0.9, "b2": 0.8, "eps": 1e-3, "graft": "sgd", "sample_every": 2, "refresh_every": 4},
    ],
)
def test_it_takes_the_steps_of_the_published_algorithm(settings):
    params, grads = fixed_gradients(SHAPES, 9)
    ours = {"refresh_every": 1} | settings
    if ours["graft"] == "adam":
        del ours["graft"]
    else:
        ours["graft"] = GRAFTS[ours["graft"]]
    found = list(steps_along(so.shampoo(0.1, **ours), params, grads))
    for name in SHAPES:
        expected = reference(params[name], [g[name] for g in grads], lr=0.1, **settings)
        kappa = condition([g[name] for g in grads], settings["eps"])
        for a, b in zip(found, expected, strict=True):
            assert_close(a[name], b, kappa)


@pytest.mark.usefixtures("x64")
def test_its_defaults_are_averages_at_the_length_of_adam():
    # Square, so that the first Grams have full rank: with so small an ε all else is rounding.
    params, grads = fixed_gradients({"w": (4, 4)}, 12)
    found = steps_along(so.shampoo(0.1), params, grads)
    settings = {"b1": 0.9, "b2": 0.99, "eps": 1e-12, "graft": "adam", "refresh_every": 10}
    expected = reference(params["w"], [g["w"] for g in grads], lr=0.1, **settings)
    kappa = condition_of(grads[0]["w"]) ** 2
    for a, b in zip(found, expected, strict=True):
        assert_close(a["w"], b, kappa)


@pytest.mark.usefixtures("x64")
def test_each_block_of_a_large_axis_is_a_matrix_of_its_own():
    params, grads = fixed_gradients({"w": (7, 4)}, 5)
    settings = {"b1": 0.0, "b2": 1.0, "eps": 1e-2, "graft": None}
    found = list(
        steps_along(so.shampoo(0.1, block_size=4, refresh_every=1, **settings), params, grads)
    )
    for rows in (slice(0, 4), slice(4, 7)):  # even blocks of at most 4; the last one is padded
        part = [g["w"][rows] for g in grads]
        expected = reference(params["w"][rows], part, lr=0.1, **settings)
        for a, b in zip(found, expected, strict=True):
            assert_close(a["w"][rows], b, condition(part, settings["eps"]))


@pytest.mark.quick(1)
@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("block_size", [None, 3])
def test_with_bases_by_eigh_the_eigen_variant_takes_the_steps_of_the_root_variant(block_size):
    params, grads = fixed_gradients(SHAPES, 1)
    steps = [
        list(steps_along(so.shampoo(eigen=eigen, eps=1e-6, block_size=block_size), params, grads))
        for eigen in (False, True)
    ]
    for name in SHAPES:
        assert_close(steps[0][0][name], steps[1][0][name], condition([grads[0][name]], 1e-6))


@pytest.mark.usefixtures("x64")
def test_the_bases_of_the_eigen_variant_follow_the_matrices():
    rng = np.random.default_rng(0)
    spread = np.geomspace(1, 30, 5)[:, None]
    grads = [{"w": spread * rng.normal(size=(5, 6))} for _ in range(60)]
    tx, params = so.shampoo(eigen=True, refresh_every=1, b2=0.99), {"w": np.zeros((5, 6))}
    state, update = tx.init(params), jax.jit(tx.update)
    for g in grads:
        _, state = update(g, state, params)
    gram, basis = (
        state[0].curvature.averages[0].factors[0][0],
        state[0].curvature.frame[0][0][0],
    )
    inside = np.asarray(basis.T @ gram @ basis)
    scale = np.sqrt(np.diag(inside))
    off = np.abs(inside / np.outer(scale, scale) - np.eye(5))
    assert off.max() < 0.05
    assert_close(np.asarray(basis.T @ basis), np.eye(5))
