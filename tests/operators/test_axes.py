"""Operators along the axes of leaves, against Kronecker products written out."""

import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest
from tolerances import assert_close, condition_of, rounding

from secondorder.operators import (
    Axes,
    AxisEigen,
    AxisRoots,
    PositiveDiagonal,
)
from secondorder.operators import _axes as ax

pytestmark = pytest.mark.usefixtures("x64")
RNG = np.random.default_rng(0)
LEAVES = {"matrix": (3, 4), "kernel": (2, 3, 2), "vector": (3,), "scalar": ()}
LIKE = {name: np.zeros(shape) for name, shape in LEAVES.items()}
POINT = {name: RNG.normal(size=shape) for name, shape in LEAVES.items()}


def orthogonal(n: int) -> np.ndarray:
    return np.linalg.qr(RNG.normal(size=(n, n)))[0]


def kronecker(factors) -> np.ndarray:
    product = np.eye(1)
    for factor in factors:
        product = np.kron(product, factor)
    return product


def block_diagonal(blocks) -> np.ndarray:
    return np.asarray(jax.scipy.linalg.block_diag(*map(jnp.asarray, blocks)))


def in_order(by_name: dict) -> tuple:
    """As the leaves of a dictionary are."""
    return tuple(by_name[name] for name in sorted(by_name))


@pytest.mark.parametrize(("size", "limit"), [(None, None), (None, 3)])
def test_an_operator_of_bases_equals_its_kronecker_products(size, limit):
    axes, bases, entries, blocks = Axes(size, limit), {}, {}, []
    for name in sorted(LEAVES):
        layout = axes.of(LIKE[name])
        q = [
            orthogonal(d) if f else None for d, f in zip(layout.sizes, layout.factored, strict=True)
        ]
        bases[name] = tuple(None if x is None else jnp.asarray(x)[None] for x in q)
        entries[name] = 0.1 + RNG.uniform(size=(1, *LEAVES[name]))
        full = [np.eye(d) if x is None else x for x, d in zip(q, layout.sizes, strict=True)]
        basis = kronecker(full)
        blocks.append(basis @ np.diag(entries[name].ravel()) @ basis.T)
    op, dense = AxisEigen(axes, in_order(bases), in_order(entries)), block_diagonal(blocks)
    eye = np.eye(len(dense))
    values, vectors = np.linalg.eigh(dense + 0.3 * eye)
    root = vectors @ np.diag(values**-0.25) @ vectors.T
    for product, expected in (
        (op.mv, dense),
        (lambda v: op.solve(v, 0.3), np.linalg.inv(dense + 0.3 * eye)),
        (lambda v: op.power(v, -0.25, 0.3), root),
    ):
        error = oracles.relative_error(oracles.matrix(product, POINT), expected)
        assert error < rounding(np.linalg.cond(dense + 0.3 * eye))


def test_an_operator_of_roots_inverts_its_product():
    axes, roots, entries = Axes(), {}, {}
    for name in LEAVES:
        layout = axes.of(LIKE[name])
        definite = lambda n, b: jnp.eye(b)[None] + 0.1 * jnp.ones((n, b, b))
        roots[name] = layout.square(definite)
        entries[name] = jnp.full((1, *LEAVES[name]), 2.0) if not any(layout.factored) else 1.0
    op = AxisRoots(axes, in_order(roots), in_order(entries))
    there = oracles.matrix(op.mv, POINT)
    back = oracles.matrix(lambda v: op.solve(v, 0.0), POINT)
    kappa = np.linalg.cond(there)
    assert oracles.relative_error(there @ back, np.eye(len(there))) < rounding(kappa)
    root = lambda d: np.eye(d) + 0.1 * np.ones((d, d))
    halves = {"scalar": np.eye(1) / 2, "vector": np.eye(3) / 2}
    blocks = [
        halves[name] if name in halves else kronecker(map(root, LEAVES[name]))
        for name in sorted(LEAVES)
    ]
    expected = block_diagonal(blocks)
    assert oracles.relative_error(back, expected) < rounding(kappa)


def test_a_diagonal_divides_by_itself_and_leaves_alone_what_it_knows_nothing_of():
    op = PositiveDiagonal({"a": jnp.array([4.0, 0.0])})
    v = {"a": jnp.array([2.0, 3.0])}
    np.testing.assert_allclose(op.solve(v, 0.0)["a"], [0.5, 0.0])
    np.testing.assert_allclose(op.solve(v, 1e-12)["a"], [0.5, 3e12])
    np.testing.assert_allclose(op.power(v, 0.5, 0.0)["a"], [4.0, 0.0])
    np.testing.assert_allclose(op.mv(v)["a"], [8.0, 0.0])


@pytest.mark.quick(8)
@pytest.mark.parametrize("shape", [(7, 4), (5, 3, 8), (1, 9), (6, 6), (26, 2)])
@pytest.mark.parametrize("size", [1, 2, 3, 5, 100])
def test_blocks_join_again_and_none_is_padding_alone(shape, size):
    layout = Axes(block_size=size).of(jnp.zeros(shape))
    x = RNG.normal(size=shape)
    blocks = layout.split(jnp.asarray(x))
    assert blocks.shape == (layout.blocks, *layout.sizes) and max(layout.sizes) <= size
    np.testing.assert_array_equal(layout.join(blocks), x)
    ones = np.asarray(layout.split(jnp.ones(shape)))
    assert ones.reshape(layout.blocks, -1).any(axis=1).all()
    for axis in range(len(shape)):
        rest = tuple(i for i in range(1, len(shape) + 1) if i != axis + 1)
        np.testing.assert_array_equal(layout.padding(axis), ones.max(axis=rest) == 0)


def test_which_axes_have_a_matrix():
    axes = Axes(block_size=4, max_size=10)
    assert axes.of(jnp.zeros((8, 12))).factored == (True, False)
    assert axes.of(jnp.zeros((8, 12))).counts == (2, 1)
    for shape in ((), (5,), (0, 3)):
        assert not any(axes.of(jnp.zeros(shape)).factored)


def test_grams_sum_over_the_other_axes():
    v, w = RNG.normal(size=(2, 2, 3, 4))
    layout = Axes().of(v)
    found = ax.grams(layout, jnp.asarray(v)[None], jnp.asarray(w)[None])
    for gram, letters in zip(found, ("iab,jab->ij", "aib,ajb->ij", "abi,abj->ij"), strict=True):
        product = np.einsum(letters, v, w)
        assert_close(gram[0], 0.5 * (product + product.T))


def test_a_basis_near_by_is_improved_to_the_eigenvectors():
    q = orthogonal(5)
    gram = jnp.asarray(q @ np.diag([1.0, 30.0, 3.0, 100.0, 10.0]) @ q.T)[None]
    basis = jnp.eye(5)[None]
    for _ in range(40):
        basis, _ = ax.next_basis(gram, basis)
    inside = basis[0].T @ gram[0] @ basis[0]
    np.testing.assert_allclose(inside, np.diag([100.0, 30, 10, 3, 1]), atol=1e-8)


def test_the_basis_of_nothing_is_a_basis():
    basis, _ = ax.next_basis(jnp.zeros((1, 3, 3)), jnp.eye(3)[None])
    assert_close(basis[0] @ basis[0].T, np.eye(3))


def test_the_columns_are_put_in_order_before_they_are_improved():
    gram, basis = jnp.diag(jnp.array([1.0, 9.0, 4.0]))[None], jnp.eye(3)[None]
    new, order = ax.next_basis(gram, basis)
    np.testing.assert_array_equal(order[0], [1, 2, 0])
    assert_close(np.abs(new[0]), np.eye(3)[:, [1, 2, 0]])


@pytest.mark.parametrize("factorise", ["eigh", "qr", "cholesky"])
def test_on_a_cpu_stacks_are_factorised_one_after_another_and_alike(factorise):
    # Batched, they may wait for one another for ever.
    kinds = {
        "eigh": jnp.linalg.eigh,
        "qr": lambda x: tuple(jnp.linalg.qr(x)),
        "cholesky": lambda x: (jnp.linalg.cholesky(x),),
    }
    rng = np.random.default_rng(0)
    root = rng.normal(size=(3, 4, 6))
    stack = jnp.asarray(root @ root.mT)
    found = jax.jit(lambda x: ax.one_by_one(kinds[factorise], x))
    for x, y in zip(found(stack), kinds[factorise](stack), strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-5)
    calls = [
        line for line in found.lower(stack).compile().as_text().splitlines() if "lapack" in line
    ]
    assert calls and not any("[3,4,4]" in line for line in calls)


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
    first = jax.jit(lambda x: ax.first_basis(x[None], jnp.eye(8)[None])[0])
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
    basis = ax.first_basis(jnp.asarray(gram)[None], jnp.eye(8)[None])
    new = gram + (gram_of_rank(gained, seed=1) if gained else 0)
    kappa = condition_of(new)
    moved = new + 10 * np.finfo(float).eps * np.max(new) * (noise + noise.T)
    following = jax.jit(lambda x: ax.next_basis(x[None], basis)[0][0])
    here, there = following(new), following(moved)
    assert_close(here.T @ here, np.eye(8))
    assert_same_columns(here, there, 100 * kappa)
    if not gained:
        assert_same_columns(here, basis[0], kappa)
