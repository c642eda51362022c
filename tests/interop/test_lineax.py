"""Operators that cross over to Lineax and back keep their products, and their symmetry."""

import jax
import jax.numpy as jnp
import lineax as lx
import numpy as np
import pytest
from tolerances import rounding

import secondorder as so
from secondorder.interop.lineax import from_lineax, to_lineax

pytestmark = pytest.mark.usefixtures("x64")

TIGHT = rounding(10)
PARAMS = {"w": np.array([[0.3, -0.7], [1.1, 0.2]]), "b": np.array([0.5, -0.4])}
VECTOR = {"w": np.array([[1.0, 2.0], [-1.0, 0.5]]), "b": np.array([-2.0, 3.0])}
INPUTS = np.array([[1.0, 0.5], [-0.3, 2.0], [0.7, -1.0], [1.5, 1.0]])
OBJECTIVE = so.compose(
    so.squared_error(np.ones((4, 2))), lambda p: jnp.tanh(INPUTS @ p["w"] + p["b"])
)


def as_dense(operator):
    return so.dense(operator, PARAMS)


@pytest.mark.quick(1)
@pytest.mark.parametrize("curvature", [so.hessian, so.ggn, so.empirical_fisher])
def test_products_in_lineax_are_the_products_here(curvature):
    operator = curvature(OBJECTIVE, PARAMS)
    theirs = jax.jit(lambda v: to_lineax(operator, PARAMS).mv(v))(VECTOR)
    assert all(jax.tree.leaves(jax.tree.map(jnp.allclose, theirs, operator.mv(VECTOR))))


@pytest.mark.quick(1)
@pytest.mark.parametrize("solver", [lx.CG(rtol=TIGHT, atol=TIGHT), lx.Cholesky()])
def test_solvers_of_lineax_solve_with_the_gauss_newton_matrix(solver):
    operator = so.ggn(OBJECTIVE, PARAMS).damped(0.1)
    theirs = to_lineax(operator, PARAMS, lx.positive_semidefinite_tag)
    found = lx.linear_solve(theirs, VECTOR, solver).value
    flat, back = jax.flatten_util.ravel_pytree(VECTOR)
    expected = back(jnp.linalg.solve(as_dense(operator), flat))
    assert all(jax.tree.leaves(jax.tree.map(lambda a, b: jnp.allclose(a, b), found, expected)))


def test_several_tags_may_be_given():
    tags = (lx.positive_semidefinite_tag, lx.diagonal_tag)
    theirs = to_lineax(so.ggn(OBJECTIVE, PARAMS), PARAMS, tags)
    assert lx.is_symmetric(theirs)
    assert lx.is_positive_semidefinite(theirs)
    assert lx.is_diagonal(theirs)


def test_there_and_back_is_the_same_matrix():
    operator = so.hessian(OBJECTIVE, PARAMS)
    assert jnp.allclose(as_dense(from_lineax(to_lineax(operator, PARAMS))), as_dense(operator))


@pytest.mark.slow
def test_an_operator_of_lineax_joins_the_algebra_and_the_instruments():
    matrix = jnp.array([[2.0, 1.0, 0.0], [1.0, 3.0, 0.5], [0.0, 0.5, 1.0]])
    like = jnp.zeros(3)
    ours = from_lineax(lx.MatrixLinearOperator(matrix, lx.symmetric_tag))
    assert jnp.allclose(so.dense(2.0 * ours.damped(0.5), like), 2 * matrix + jnp.eye(3))
    values = so.top_eigenpairs(ours, like, jax.random.key(0), 3).value
    assert jnp.allclose(jnp.sort(values), jnp.linalg.eigvalsh(matrix))


def test_an_operator_that_may_be_unsymmetric_is_refused_with_a_way_out():
    with pytest.raises(ValueError, match="symmetric_tag"):
        from_lineax(lx.MatrixLinearOperator(jnp.array([[1.0, 2.0], [0.0, 1.0]])))
