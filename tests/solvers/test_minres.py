"""Minimal residuals, against the least residual over the Krylov space by dense algebra."""

import jax
import numpy as np
import pytest
from tolerances import rounding

from secondorder.solvers import _minres as minres

N, STEPS = 12, 8
RNG = np.random.default_rng(5)
TURN = np.linalg.qr(RNG.normal(size=(N, N)))[0]
B = RNG.normal(size=N)
SPECTRA = {
    "definite": np.linspace(1, 8, N),
    "indefinite": np.linspace(-4, 7, N) + 0.3,
    "singular": np.r_[np.zeros(3), np.linspace(-2, 5, N - 3)],
}


@jax.jit
def walked(matrix, inverse, b):
    def body(at, _):
        at = minres.advance(at, lambda v: matrix @ v, lambda r: inverse @ r)
        return at, (at.step, at.residual, at.least)

    start = minres.begin(b, lambda r: inverse @ r)
    return jax.lax.scan(body, start, None, length=STEPS)[1]


@pytest.mark.parametrize("preconditioned", [False, True])
@pytest.mark.parametrize("spectrum", SPECTRA)
def test_each_iterate_has_the_least_residual_of_its_krylov_space(spectrum, preconditioned, x64):
    matrix = TURN * SPECTRA[spectrum] @ TURN.T
    half = RNG.normal(size=(N, N)) if preconditioned else np.eye(N)
    inverse = half @ half.T + preconditioned * np.eye(N)
    low = np.linalg.cholesky(inverse)  # norms of residuals are ‖lowᵀ r‖
    steps, residuals, least = (np.asarray(x) for x in walked(matrix, inverse, B))
    space = [inverse @ B]
    for step, residual in zip(steps, residuals, strict=True):
        basis = np.linalg.qr(np.stack(space, axis=1))[0]
        weights = np.linalg.lstsq(low.T @ matrix @ basis, low.T @ B, rcond=None)[0]
        best = np.linalg.norm(low.T @ (B - matrix @ basis @ weights))
        found = np.linalg.norm(low.T @ (B - matrix @ step))
        size = np.linalg.norm(low.T @ B)
        np.testing.assert_allclose([found, residual], best, rtol=1e-6, atol=1e-8 * size)
        space.append(inverse @ matrix @ basis[:, -1])
    assert not least.any()


def test_in_an_exhausted_space_the_residual_is_marked_as_the_least(x64):
    matrix = np.diag(np.r_[0.0, 0.0, 1.0, -2.0, np.full(N - 4, 1.0)])
    steps, residuals, least = walked(matrix, np.eye(N), np.ones(N))
    assert np.asarray(least)[-1]
    np.testing.assert_allclose(np.asarray(residuals)[-1], 2**0.5, rtol=rounding(1e4))
    np.testing.assert_allclose(np.asarray(steps)[-1][2:5], [1.0, -0.5, 1.0], rtol=1e-7)
