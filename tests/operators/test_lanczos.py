"""Lanczos' process against the matrix it projects."""

import jax
import jax.numpy as jnp
import numpy as np
from tolerances import assert_close

from secondorder.operators import _lanczos as lanczos


def basis_of(matrix, vector, steps):
    @jax.jit
    def build(vector):
        def extend(basis, _):
            grown, image, rest = lanczos.expand(lambda x: matrix @ x, basis)
            return lanczos.append(grown, image, rest), None

        return jax.lax.scan(extend, lanczos.start(vector, steps), length=steps)[0]

    return build(vector)._replace(size=jnp.asarray(steps))


def test_the_basis_stays_orthonormal_in_float32_where_it_would_show_ghosts():
    matrix = jnp.asarray(np.diag(np.concatenate([np.linspace(0, 1, 99), [100.0]])), jnp.float32)
    basis = basis_of(matrix, jnp.ones(100, jnp.float32), 60)
    gram = np.asarray(basis.vectors @ basis.vectors.T)
    np.testing.assert_allclose(gram, np.eye(60), atol=1e-5)
    values = lanczos.eigen(basis, basis.size)[0]
    assert np.sum(np.asarray(values) > 50) == 1


def test_the_projection_is_the_tridiagonal_matrix(x64):
    matrix = np.random.default_rng(0).standard_normal((12, 12))
    matrix = jnp.asarray(matrix + matrix.T)
    basis = basis_of(matrix, jnp.arange(1.0, 13.0), 5)
    q, off = basis.vectors, basis.off[:4]
    expected = jnp.diag(basis.diagonal) + jnp.diag(off, 1) + jnp.diag(off, -1)
    assert_close(q @ matrix @ q.T, expected, norm=np.linalg.norm(matrix, 2))


def test_an_invariant_space_ends_with_a_rest_of_zero(x64):
    matrix = jnp.diag(jnp.array([1.0, 1.0, 3.0, 3.0]))
    basis = lanczos.start(jnp.ones(4), 4)
    rests = []
    for _ in range(2):
        basis, image, rest = lanczos.expand(lambda x: matrix @ x, basis)
        basis = lanczos.append(basis, image, rest)
        rests.append(float(rest))
    assert rests[0] > 0.5 and rests[1] == 0
    assert not np.any(basis.vectors[2])
