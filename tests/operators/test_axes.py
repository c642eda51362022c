"""Leaves as blocks along their axes, and operators of them against Kronecker products."""

import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest
from tolerances import assert_close, rounding

from secondorder.operators import Axes, Kronecker, KroneckerEigen, PositiveDiagonal
from secondorder.operators import _kronecker as kr

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
        block = axes.of(LEAVES[name])
        q = [orthogonal(d) if f else None for d, f in zip(block.sizes, block.factored, strict=True)]
        bases[name] = tuple(None if x is None else jnp.asarray(x)[None] for x in q)
        entries[name] = 0.1 + RNG.uniform(size=(1, *LEAVES[name]))
        full = [np.eye(d) if x is None else x for x, d in zip(q, block.sizes, strict=True)]
        basis = kronecker(full)
        blocks.append(basis @ np.diag(entries[name].ravel()) @ basis.T)
    op, dense = (
        KroneckerEigen(axes.blocks(LIKE), in_order(bases), in_order(entries)),
        block_diagonal(blocks),
    )
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
        block = axes.of(LEAVES[name])
        definite = lambda n, b: jnp.eye(b)[None] + 0.1 * jnp.ones((n, b, b))
        roots[name] = block.square(definite)
        entries[name] = None if any(block.factored) else jnp.full((1, *LEAVES[name]), 2.0)
    blocks = axes.blocks(LIKE)
    op = Kronecker(blocks, None, inverses=in_order(roots), entries=in_order(entries))
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


@pytest.mark.quick(8)
@pytest.mark.parametrize("shape", [(7, 4), (5, 3, 8), (1, 9), (6, 6), (26, 2)])
@pytest.mark.parametrize("size", [1, 2, 3, 5, 100])
def test_pieces_form_the_leaf_again_and_none_is_padding_alone(shape, size):
    block = Axes(block_size=size).of(shape)
    x = RNG.normal(size=shape)
    pieces = block.join([jnp.asarray(x)])
    assert pieces.shape == (block.pieces, *block.sizes) and max(block.sizes) <= size
    np.testing.assert_array_equal(block.split(pieces)[0], x)
    ones = np.asarray(block.join([jnp.ones(shape)]))
    assert ones.reshape(block.pieces, -1).any(axis=1).all()
    for axis in range(len(shape)):
        rest = tuple(i for i in range(1, len(shape) + 1) if i != axis + 1)
        np.testing.assert_array_equal(block.padding(axis), ones.max(axis=rest) == 0)


def test_which_axes_have_a_matrix():
    axes = Axes(block_size=4, max_size=10)
    assert axes.of((8, 12)).factored == (True, False)
    assert axes.of((8, 12)).counts == (2, 1)
    for shape in ((), (5,), (0, 3)):
        assert not any(axes.of(shape).factored)


def test_a_diagonal_divides_by_itself_and_leaves_alone_what_it_knows_nothing_of():
    op = PositiveDiagonal({"a": jnp.array([4.0, 0.0])})
    v = {"a": jnp.array([2.0, 3.0])}
    np.testing.assert_allclose(op.solve(v, 0.0)["a"], [0.5, 0.0])
    np.testing.assert_allclose(op.solve(v, 1e-12)["a"], [0.5, 3e12])
    np.testing.assert_allclose(op.power(v, 0.5, 0.0)["a"], [4.0, 0.0])
    np.testing.assert_allclose(op.mv(v)["a"], [8.0, 0.0])


def test_grams_sum_over_the_other_axes():
    v, w = RNG.normal(size=(2, 2, 3, 4))
    like = Axes().of(v.shape).square(lambda n, b: jnp.zeros((n, b, b)))
    found = kr.grams(like, jnp.asarray(v)[None], jnp.asarray(w)[None])
    for gram, letters in zip(found, ("iab,jab->ij", "aib,ajb->ij", "abi,abj->ij"), strict=True):
        product = np.einsum(letters, v, w)
        assert_close(gram[0], 0.5 * (product + product.T))
    found = kr.grams((None, jnp.zeros((1, 3)), None), jnp.asarray(v)[None], jnp.asarray(w)[None])
    assert found[0] is None and found[2] is None
    assert_close(found[1][0], np.einsum("aib,aib->i", v, w))
