"""Factorisations of one matrix and of many at once, against NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tolerances import rounding

from secondorder.linalg._batched import singular, triangular
from secondorder.linalg._lapack import FEW

RNG = np.random.default_rng(5)
SIZES = pytest.mark.parametrize("k", [1, 2, 3, FEW, FEW + 2])
GRADES = 10.0 ** np.array([0, -6, 3, -2, 5, 0, -1, 2])


ONE_TRIANGLE, TRIANGLES = jax.jit(triangular), jax.jit(jax.vmap(triangular))
ONE_SINGULAR, SINGULAR = jax.jit(singular), jax.jit(jax.vmap(singular))


def graded(*shape):
    return RNG.normal(size=shape) * GRADES[: shape[-1]]


@pytest.mark.quick(3)
@SIZES
@pytest.mark.parametrize("rows", [0, 7], ids=["square", "tall"])
def test_triangles_of_a_batch_fit_as_the_matrices_do(x64, k, rows):
    a, r = graded(9, k + rows, k), RNG.normal(size=(9, k + rows))
    upper, q = TRIANGLES(a, r)
    np.testing.assert_array_equal(np.tril(upper, -1), 0)
    units = np.linalg.norm(a, axis=1)
    gram = np.einsum("bij,bik->bjk", a, a) / units[:, :, None] / units[:, None]
    again = np.einsum("bij,bik->bjk", upper, upper) / units[:, :, None] / units[:, None]
    np.testing.assert_allclose(again, gram, atol=rounding(norm=k))
    slope = np.einsum("bij,bi->bj", a, r) / units
    size = rounding(norm=np.linalg.norm(r, axis=1).max())
    np.testing.assert_allclose(np.einsum("bij,bi->bj", upper, q) / units, slope, atol=size)
    for i in range(9):
        one, other = ONE_TRIANGLE(a[i], r[i])
        signs = np.sign(np.diag(one)) * np.sign(np.diag(upper[i]))
        kept = np.linalg.cond(a[i] / units[i])
        same = signs[:, None] * one / units[i]
        np.testing.assert_allclose(upper[i] / units[i], same, atol=rounding(kept))
        np.testing.assert_allclose(q[i], signs * other, atol=kept * size)


@pytest.mark.quick(5)
@SIZES
@pytest.mark.parametrize("many", [False, True], ids=["one", "many"])
def test_singular_values_come_with_orthogonal_columns(x64, k, many):
    a = RNG.normal(size=(9, k, k))
    found = SINGULAR(a) if many else map(np.stack, zip(*map(ONE_SINGULAR, a), strict=True))
    s, turned, v = map(np.asarray, found)
    expected, largest = np.sort(np.linalg.svd(a, compute_uv=False)), np.max(s)
    np.testing.assert_allclose(np.sort(s), expected, atol=rounding(norm=largest))
    np.testing.assert_allclose(a @ v, turned, atol=rounding(norm=largest))
    np.testing.assert_allclose(v.mT @ v, np.tile(np.eye(k), (9, 1, 1)), atol=rounding(norm=k))
    squares = s[:, None] ** 2 * np.eye(k)
    np.testing.assert_allclose(turned.mT @ turned, squares, atol=rounding(norm=largest**2))


def test_columns_of_zeros_in_a_batch_have_singular_values_of_zero(x64):
    a = np.stack([np.zeros((3, 3)), np.outer([1.0, 2, 3], [1.0, 0, 1])])
    s, _, v = SINGULAR(a)
    np.testing.assert_allclose(np.sort(s), [[0, 0, 0], [0, 0, np.sqrt(28)]], atol=rounding(norm=28))
    assert np.isfinite(v).all()
    upper, q = TRIANGLES(a, np.ones((2, 3)))
    assert np.isfinite(upper).all() and np.isfinite(q).all()


def test_a_batch_is_differentiated_as_its_matrices_are(x64):
    a = RNG.normal(size=(4, 5, 3))
    size = lambda a: jnp.sum(triangular(a, jnp.ones(5))[0] ** 2) + jnp.sum(singular(a[:3])[0])
    many, one = jax.jit(jax.vmap(jax.grad(size))), jax.jit(jax.grad(size))
    many, expected = np.asarray(many(a)), np.stack([one(x) for x in a])
    tolerance = rounding(np.linalg.cond(a).max(), np.abs(expected).max())
    np.testing.assert_allclose(many, expected, atol=tolerance)
