"""Factorisations are NumPy's, and a batch of them is taken one after another on a CPU."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P
from tolerances import assert_close

from secondorder.linalg import _lapack as lapack
from secondorder.linalg._svd import thin_svd

SIZE = 6
ROOTS = np.random.default_rng(0).normal(size=(2, 3, SIZE, SIZE + 2))
GRAMS = ROOTS @ ROOTS.transpose(0, 1, 3, 2) + 3 * np.eye(SIZE)
LOWER = np.linalg.cholesky(GRAMS)
UPPER = LOWER.transpose(0, 1, 3, 2)
RIGHT = np.random.default_rng(1).normal(size=(2, 3, SIZE))
CONDITION = float(np.max(np.linalg.cond(GRAMS)))


def rebuilt_by_eigh(a):
    values, vectors = lapack.eigh(a)
    return (vectors * values) @ vectors.T


def rebuilt_by_qr(a):
    basis, upper = lapack.qr(a)
    return basis @ upper


def rebuilt_by_svd(a):
    u, s, vt = thin_svd(a)
    return (u * s) @ vt


def each(solve, *arrays):
    """Matrix by matrix, by SciPy."""
    shape = arrays[0].shape[:2]
    flat = [x.reshape(-1, *x.shape[2:]) for x in arrays]
    found = [solve(*parts) for parts in zip(*flat, strict=True)]
    return np.reshape(found, (*shape, *np.shape(found[0])))


triangular = scipy.linalg.solve_triangular
#: ours, its arrays, the right result.
CASES = {
    "cholesky": (lapack.cholesky, (GRAMS,), LOWER),
    "eigh": (rebuilt_by_eigh, (GRAMS,), GRAMS),
    "qr": (rebuilt_by_qr, (ROOTS,), ROOTS),
    "solve": (lapack.solve, (GRAMS, RIGHT), each(np.linalg.solve, GRAMS, RIGHT)),
    "inverse": (lapack.inverse, (GRAMS,), np.linalg.inv(GRAMS)),
    "with_cholesky": (lapack.with_cholesky, (LOWER, RIGHT), each(np.linalg.solve, GRAMS, RIGHT)),
    "with_lower": (
        lapack.with_lower,
        (LOWER, RIGHT),
        each(lambda a, b: triangular(a, b, lower=True), LOWER, RIGHT),
    ),
    "with_upper": (lapack.with_upper, (UPPER, RIGHT), each(triangular, UPPER, RIGHT)),
    "with_upper_transposed": (
        lapack.with_upper_transposed,
        (UPPER, RIGHT),
        each(lambda a, b: triangular(a, b, trans=1), UPPER, RIGHT),
    ),
    "svd": (rebuilt_by_svd, (ROOTS,), ROOTS),
}
KINDS = pytest.mark.parametrize("kind", CASES)
#: A call with results of many matrices, such as f64[3,6,6].
OF_MANY = re.compile(r"f(32|64)\[\d+,\d+,\d+.*custom-call\(.*lapack")


@pytest.mark.quick(5)
@KINDS
def test_single_matrices_lanes_and_lanes_of_lanes_are_numpys(kind, x64):
    ours, arrays, expected = CASES[kind]
    assert_close(ours(*(x[0, 0] for x in arrays)), expected[0, 0], CONDITION)
    lanes = jax.jit(jax.vmap(ours))(*(x[:, 0] for x in arrays))
    assert_close(lanes, expected[:, 0], CONDITION)
    assert_close(jax.jit(jax.vmap(jax.vmap(ours)))(*arrays), expected, CONDITION)


@pytest.mark.quick(3)
@KINDS
@pytest.mark.skipif(jax.default_backend() != "cpu", reason="Only a CPU takes them in turn.")
def test_no_batch_of_matrices_reaches_lapack_on_a_cpu(kind, x64):
    """A batched call waits on a thread of a pool for parts that need a thread of that pool."""
    ours, arrays, _ = CASES[kind]
    text = jax.jit(jax.vmap(jax.vmap(ours))).lower(*arrays).compile().as_text()
    assert "lapack" in text or "blas" in text
    assert not OF_MANY.search(text)


@pytest.mark.skipif(jax.default_backend() != "cpu", reason="Only a CPU takes them in turn.")
def test_a_batched_call_would_be_seen(x64):
    text = jax.jit(jnp.linalg.cholesky).lower(GRAMS[0]).compile().as_text()
    assert OF_MANY.search(text)


@pytest.mark.quick(2)
@pytest.mark.parametrize("kind", ["solve", "cholesky", "with_lower"])
def test_derivatives_of_both_modes_are_those_of_one_matrix(kind, x64):
    ours, arrays, _ = CASES[kind]
    plain = {
        "solve": jnp.linalg.solve,
        "cholesky": jnp.linalg.cholesky,
        "with_lower": lambda a, b: jax.scipy.linalg.solve_triangular(a, b, lower=True),
    }[kind]
    for derivative in (jax.jacfwd, jax.jacrev):
        found = jax.jit(jax.vmap(derivative(ours)))(*(x[0] for x in arrays))
        known = jax.vmap(derivative(plain))(*(x[0] for x in arrays))
        assert_close(found, known, CONDITION**2)


@pytest.mark.parametrize("axis_type", [AxisType.Auto, AxisType.Explicit], ids=["auto", "explicit"])
def test_lanes_that_devices_share_stay_there(axis_type, x64):
    if jax.device_count() < 8:
        pytest.skip("needs the eight CPU devices of conftest.py")
    mesh = jax.make_mesh((8,), ("devices",), axis_types=(axis_type,))
    grams = jnp.stack([*GRAMS.reshape(6, SIZE, SIZE)] * 4)
    with jax.set_mesh(mesh):
        spread = jax.device_put(grams, NamedSharding(mesh, P("devices")))
        found = jax.jit(jax.vmap(lapack.solve, (0, None)))(spread, RIGHT[0, 0])
        if axis_type == AxisType.Explicit:
            assert jax.typeof(found).sharding.spec[0] == "devices"
    assert_close(found, np.linalg.solve(grams, RIGHT[0, 0][None, :, None])[..., 0], CONDITION)


def test_what_all_lanes_share_is_given_to_each(x64):
    found = jax.vmap(lapack.solve, (None, 0))(GRAMS[0, 0], RIGHT[0])
    assert_close(
        found, each(np.linalg.solve, np.stack([GRAMS[:1, 0]] * 3, 1), RIGHT[:1])[0], CONDITION
    )
