"""Kronecker operators against products written out, in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tolerances import assert_close, rounding

import secondorder as so
from secondorder.operators import Kronecker, KroneckerEigen, Leaf
from secondorder.operators._kronecker import inverses, shifts

pytestmark = pytest.mark.usefixtures("x64")
PARAMS = {"conv": np.zeros((2, 3, 4)), "dense": np.zeros((5, 3)), "vector": np.zeros(4)}
BLOCKS = (Leaf(0, (2, 3, 4)), Leaf(1, (5, 3)), Leaf(2, (4,)))
LAMBDA = 0.3


def moments(d, seed):
    x = np.random.default_rng(seed).normal(size=(d, 2 * d))
    return x @ x.T * 10.0 ** (seed % 3)


def written_out(matrices):
    product = np.eye(1)
    for m in matrices:
        product = np.kron(product, m)
    return product


def block_diagonal(blocks):
    size = sum(len(b) for b in blocks)
    matrix, at = np.zeros((size, size)), 0
    for b in blocks:
        matrix[at : at + len(b), at : at + len(b)] = b
        at += len(b)
    return matrix


FACTORS = (
    [moments(2, 0), moments(3, 1), moments(4, 2)],
    [np.diag([1.0, 0.0, 2.0, 0.5, 3.0]), moments(3, 4)],  # the first is kept as its diagonal
    [np.diag([4.0, 0.0, 1.0, 2.0])],
)


def kept(factors=FACTORS):
    """As the library keeps them: diagonal ones as their diagonals, stacked one high."""
    entries = lambda f: np.diag(f) if (f == np.diag(np.diag(f))).all() else f
    return tuple(tuple(jnp.asarray(entries(f))[None] for f in block) for block in factors)


V = jax.tree.map(lambda x: np.random.default_rng(9).normal(size=x.shape), PARAMS)
FLAT = np.concatenate([np.ravel(x) for x in jax.tree.leaves(V)])


def flat(tree):
    return np.concatenate([np.ravel(x) for x in jax.tree.leaves(tree)])


def test_products_are_those_of_the_written_out_matrix():
    exact = block_diagonal([written_out(f) for f in FACTORS])
    op = Kronecker(BLOCKS, kept())
    assert_close(flat(op.mv(V)), exact @ FLAT)
    assert_close(so.dense(op, PARAMS), exact)
    v = jax.tree.map(jnp.asarray, V)
    assert_close(op.gram(v)[0, 0], FLAT @ exact @ FLAT)


def damped(factors):
    """Rule 6, written out: λ^(1/r) times each mean trace over their geometric mean."""
    means = np.array([np.trace(f) / len(f) for f in factors])
    share = LAMBDA ** (1 / len(factors)) * means / np.exp(np.mean(np.log(means)))
    return [f + s * np.eye(len(f)) for f, s in zip(factors, share, strict=True)]


def test_solutions_are_of_factors_that_are_damped_by_their_share():
    kappa = max(np.prod([np.linalg.cond(x) for x in damped(f)]) for f in FACTORS)
    exact = np.linalg.inv(block_diagonal([written_out(damped(f)) for f in FACTORS]))
    for made in (None, [inverses(f, LAMBDA) for f in kept()]):
        found = Kronecker(BLOCKS, kept(), made).solve(V, LAMBDA)
        assert_close(flat(found), exact @ FLAT, kappa)


def test_two_factors_are_damped_by_pi_and_its_inverse():
    a, g = moments(5, 0), moments(3, 1)
    pi = np.sqrt((np.trace(a) / 5) / (np.trace(g) / 3))
    found = shifts((jnp.asarray(a)[None], jnp.asarray(g)[None]), LAMBDA)
    expected = [pi * LAMBDA**0.5, LAMBDA**0.5 / pi]
    np.testing.assert_allclose(np.ravel(found), expected, rtol=rounding())


def test_a_stack_of_layers_is_damped_each_by_its_own():
    a, g = np.stack([moments(3, 0), moments(3, 2)]), np.stack([moments(2, 1), moments(2, 5)])
    together = inverses((jnp.asarray(a), jnp.asarray(g)), LAMBDA)
    for s in range(2):
        alone = inverses((jnp.asarray(a[s : s + 1]), jnp.asarray(g[s : s + 1])), LAMBDA)
        for x, y in zip(together, alone, strict=True):
            assert_close(x[s], y[0], np.linalg.cond(y[0]))


def test_factors_of_zeros_have_finite_inverses():
    zeros = (jnp.zeros((1, 3, 3)), moments(2, 0)[None]), (jnp.zeros((1, 3)), jnp.zeros((1, 2, 2)))
    for factors in zeros:
        assert all(np.isfinite(x).all() for x in inverses(tuple(map(jnp.asarray, factors)), 0.1))


def test_in_eigenbases_products_and_damped_solutions_are_those_of_the_written_out_matrix():
    rng = np.random.default_rng(3)
    q = [np.linalg.qr(rng.normal(size=(d, d)))[0] for d in (5, 3)]
    entries = rng.uniform(size=(5, 3)) * np.array([1.0, 0.0, 1e3])
    leaf = (Leaf(0, (5, 3)),)
    op = KroneckerEigen(leaf, (tuple(jnp.asarray(b)[None] for b in q),), (entries[None],))
    basis = written_out(q)
    v = rng.normal(size=(5, 3))
    for found, spectrum in (
        (op.mv(v), entries),
        (op.solve(v, LAMBDA), 1 / (entries + LAMBDA)),
        (op.power(v, 0.5, LAMBDA), (entries + LAMBDA) ** 0.5),
    ):
        exact = basis @ np.diag(spectrum.ravel()) @ basis.T
        size = spectrum.max() * np.linalg.norm(v)
        assert_close(np.ravel(found), exact @ v.ravel(), norm=size)
    assert np.isfinite(op.solve(v, 0.0)).all()


def test_leaves_of_low_precision_are_multiplied_in_float32():
    blocks, factors = (Leaf(0, (5, 3)),), (tuple(jnp.asarray(f, jnp.float32) for f in kept()[1]),)
    found = Kronecker(blocks, factors).mv(jnp.ones((5, 3), jnp.bfloat16))
    assert found.dtype == jnp.bfloat16
