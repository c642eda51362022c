"""Singular values for certain, against NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tolerances import assert_close

from secondorder.linalg import _svd as svd
from secondorder.linalg._svd import thin_svd

RNG = np.random.default_rng(7)
MATRICES = RNG.normal(size=(5, 4, 3))


@pytest.fixture(params=["LAPACK succeeds", "LAPACK gives up on large entries"])
def lapack(request, monkeypatch):
    """As divide and conquer was seen to fail: NaN in all factors of a finite matrix."""
    if request.param == "LAPACK succeeds":
        yield
        return
    found = svd._first

    def gives_up(a):
        failed = jnp.where(jnp.max(jnp.abs(a)) > np.abs(MATRICES[1:]).max(), jnp.nan, 1)
        return tuple(failed * factor for factor in found(a))

    monkeypatch.setattr(svd, "_first", gives_up)
    jax.clear_caches()  # programs traced before would still succeed
    yield
    jax.clear_caches()


def with_a_large_entry():
    matrices = MATRICES.copy()
    matrices[0, 1, 2] = 10.0
    return matrices


def rebuilt(a):
    u, s, vt = thin_svd(a)
    return (u * s) @ vt


@pytest.mark.quick(1)
@pytest.mark.parametrize("jit", [False, True])
def test_the_factors_are_those_of_the_matrix(lapack, jit, x64):
    for a in with_a_large_entry():
        u, s, vt = (jax.jit(thin_svd) if jit else thin_svd)(jnp.asarray(a))
        assert_close(s, np.linalg.svd(a, compute_uv=False))
        assert_close((u * s) @ vt, a, norm=np.linalg.norm(a))
        assert_close(u.T @ u, np.eye(3), norm=3)


@pytest.mark.quick(1)
def test_one_matrix_of_a_batch_that_fails_leaves_the_others_as_they_are(lapack, x64):
    a = jnp.asarray(with_a_large_entry())
    assert_close(jax.vmap(rebuilt)(a), a)
    each = jnp.stack([thin_svd(one)[1] for one in a])
    assert_close(jax.vmap(thin_svd)(a)[1], each)


@pytest.mark.quick(1)
@pytest.mark.parametrize("batch", [False, True])
def test_derivatives_are_those_of_the_formula(lapack, batch, x64):
    a = jnp.asarray(with_a_large_entry())
    nuclear = lambda a: jnp.sum(thin_svd(a)[1])  # its gradient is U Vᵀ
    polar = lambda a: (lambda u, s, vt: u @ vt)(*np.linalg.svd(a, full_matrices=False))
    slopes = jax.vmap(jax.grad(nuclear))(a) if batch else jnp.stack(list(map(jax.grad(nuclear), a)))
    assert_close(slopes, np.stack([polar(one) for one in a]), np.linalg.cond(a).max())


def test_a_second_algorithm_runs_only_where_the_first_failed(monkeypatch):
    ran = []

    def counted(a):
        jax.debug.callback(lambda: ran.append(1))
        return svd._first(a)

    monkeypatch.setattr(svd, "_other", counted)
    jax.clear_caches()
    jax.block_until_ready(jax.vmap(thin_svd)(jnp.asarray(MATRICES, jnp.float32)))
    jax.effects_barrier()
    assert not ran


@pytest.mark.parametrize("batch", [False, True])
def test_the_compiler_leaves_the_second_algorithm_inside_the_loop(batch):
    # Run before the loop it would take most of the time, and beside the first one.
    program = jax.jit(jax.vmap(thin_svd) if batch else thin_svd)
    text = program.lower(jnp.zeros((2, 4, 3)[not batch :], jnp.float32)).compile().as_text()
    computations = text.split("\n\n")
    first, second = (
        {i for i, each in enumerate(computations) if name in each} for name in ("sgesdd", "sgesvd")
    )
    assert first and second and first.isdisjoint(second)
