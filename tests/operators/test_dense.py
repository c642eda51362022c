"""Between trees and matrices."""

import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest

import secondorder as so
from secondorder.operators import Diagonal, Identity, Operator
from secondorder.operators._dense import basis_vector, join, over_basis, ravel, unravel

TREES = {
    "a bare array": jnp.arange(6.0).reshape(2, 3),
    "a number": jnp.array(2.0),
    "nested": {"b": (jnp.arange(2.0), None), "a": {"x": jnp.array(7.0), "y": jnp.ones((1, 2, 1))}},
    "an empty leaf": [jnp.zeros((0, 3)), jnp.arange(2.0)],
    "nothing": {},
}


@pytest.mark.parametrize("tree", TREES.values(), ids=TREES)
def test_a_tree_goes_to_a_vector_and_back_in_the_order_of_its_leaves(tree):
    vector = ravel(tree)
    np.testing.assert_array_equal(vector, oracles.flat(tree))
    back = unravel(vector, tree)
    assert jax.tree.structure(back) == jax.tree.structure(tree)
    jax.tree.map(np.testing.assert_array_equal, back, tree)


@pytest.mark.parametrize("tree", TREES.values(), ids=TREES)
def test_unit_vectors_are_the_rows_of_the_identity(tree):
    size = so.tree.size(tree)
    for i in range(size):
        np.testing.assert_array_equal(ravel(basis_vector(i, tree)), np.eye(size)[i])
    assert size == oracles.flat(tree).size


@pytest.mark.parametrize("chunk_size", [None, 1, 2, 5, 100])
def test_chunks_of_unit_vectors_change_nothing(chunk_size):
    like = TREES["nested"]
    double = lambda v: jax.tree.map(lambda x: 2 * x, v)
    columns = jax.jit(lambda: over_basis(double, like, chunk_size))()
    np.testing.assert_array_equal(join(columns, 1), 2 * np.eye(so.tree.size(like)))


def test_vectors_of_half_precision_trees_are_float32():
    tree = {"a": jnp.ones(2, jnp.bfloat16), "b": jnp.ones(1, jnp.float16)}
    assert ravel(tree).dtype == jnp.float32
    assert basis_vector(0, tree)["a"].dtype == jnp.bfloat16
    assert so.dense(so.hessian(lambda p: jnp.sum(p["a"]), tree), tree).dtype == jnp.float32


def test_a_matrix_takes_abstract_parameters_for_its_shape():
    like = jax.ShapeDtypeStruct((2,), jnp.float32)
    np.testing.assert_array_equal(so.dense(Identity(), like), np.eye(2))
    np.testing.assert_array_equal(so.dense(Diagonal(jnp.arange(2.0)), like), np.diag([0.0, 1.0]))
    op = so.operators.Function(lambda v: 3 * v, like)
    np.testing.assert_array_equal(so.dense(op, like), 3 * np.eye(2))


def test_a_structured_operator_is_asked_for_its_matrix_not_for_products():
    class Known(Operator):
        def mv(self, v):
            raise AssertionError("a product was taken")

        def matrix(self, like):
            return jnp.full((2, 2), 3.0)

    np.testing.assert_array_equal(so.dense(2 * Known() + Known(), jnp.ones(2)), np.full((2, 2), 9))
