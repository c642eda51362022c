"""Eigenbases of stacks of matrices, and bases near by."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tolerances import assert_close, condition_of, rounding

from secondorder.operators import _eigenbases as eb

pytestmark = pytest.mark.usefixtures("x64")
RNG = np.random.default_rng(0)


def orthogonal(n: int) -> np.ndarray:
    return np.linalg.qr(RNG.normal(size=(n, n)))[0]


def test_a_basis_near_by_is_improved_to_the_eigenvectors():
    q = orthogonal(5)
    gram = jnp.asarray(q @ np.diag([1.0, 30.0, 3.0, 100.0, 10.0]) @ q.T)[None]
    basis = jnp.eye(5)[None]
    for _ in range(40):
        basis = eb.next_basis(gram, basis)
    inside = basis[0].T @ gram[0] @ basis[0]
    np.testing.assert_allclose(inside, np.diag(np.diag(inside)), atol=1e-8)
    np.testing.assert_allclose(sorted(np.diag(inside)), [1.0, 3, 10, 30, 100], atol=1e-8)


def test_the_basis_of_nothing_is_a_basis():
    basis = eb.next_basis(jnp.zeros((1, 3, 3)), jnp.eye(3)[None])
    assert_close(basis[0] @ basis[0].T, np.eye(3))


def test_the_columns_are_improved_in_the_order_of_their_eigenvalues_and_keep_their_places():
    root = np.diag([1.0, 3.0, 2.0]) + 0.1 * RNG.normal(size=(3, 3))
    gram, order = root @ root.T, [1, 2, 0]
    new = eb.next_basis(jnp.asarray(gram)[None], jnp.eye(3)[None])[0]
    expected = np.linalg.qr(gram[:, order])[0]
    assert_close(np.abs(new), np.abs(expected[:, np.argsort(order)]), condition_of(gram))


def gram_of_rank(rank, n=8, seed=0):
    rng = np.random.default_rng(seed)
    root = rng.normal(size=(n, rank))
    return root @ root.T


def assert_same_columns(a, b, condition=1.0):
    inside = np.abs(np.asarray(a).T @ np.asarray(b))
    np.testing.assert_allclose(inside, np.eye(len(inside)), rtol=0, atol=rounding(condition))


def test_the_first_basis_of_a_null_space_is_no_rounding():
    gram, noise = gram_of_rank(3), RNG.normal(size=(8, 8))
    kappa = condition_of(gram)
    moved = gram + 10 * np.finfo(float).eps * np.max(gram) * (noise + noise.T)
    first = jax.jit(lambda x: eb.first_basis(x[None], jnp.eye(8)[None])[0])
    here, there = first(gram), first(moved)
    assert_close(here.T @ here, np.eye(8))
    inside = here.T @ gram @ here
    assert_close(inside, np.diag(np.diag(inside)), kappa)
    assert_same_columns(here, there, 8 * kappa)
    # Coordinates without any gradient remain as they are.
    dead = np.zeros((8, 8))
    dead[:3, :3] = gram_of_rank(3, 3)
    assert_same_columns(np.asarray(first(dead))[3:, 3:], np.eye(5))
    assert_same_columns(first(np.zeros((8, 8))), np.eye(8))


@pytest.mark.parametrize("gained", [0, 1, 4])
def test_a_later_basis_keeps_its_columns_where_the_gram_is_rounding(gained):
    gram, noise = gram_of_rank(3), RNG.normal(size=(8, 8))
    basis = eb.first_basis(jnp.asarray(gram)[None], jnp.eye(8)[None])
    new = gram + (gram_of_rank(gained, seed=1) if gained else 0)
    kappa = condition_of(new)
    moved = new + 10 * np.finfo(float).eps * np.max(new) * (noise + noise.T)
    following = jax.jit(lambda x: eb.next_basis(x[None], basis)[0])
    here, there = following(new), following(moved)
    assert_close(here.T @ here, np.eye(8))
    assert_same_columns(here, there, 100 * kappa)
    if not gained:
        assert_same_columns(here, basis[0], kappa)
