"""Complex outputs of real parameters: the same as their real and imaginary parts side by side."""

import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest
from tolerances import assert_close

import secondorder as so

T = np.linspace(0.0, 3.0, 15)
TRUTH = np.array([1.5, 0.4, 2.2])


def wave(p, t=T):
    """A decaying oscillation ``a exp((iω − γ) t)``."""
    t = jnp.asarray(t, p.dtype)
    return p[0] * jnp.exp(jax.lax.complex(-p[1] * t, p[2] * t))


def side_by_side(z):
    """The real parts of all outputs, then the imaginary ones."""
    return jnp.concatenate([jnp.real(z), jnp.imag(z)])


def noise(seed, dtype):
    """Of both parts, 5 %; complex64 or complex128."""
    draws = np.random.default_rng(seed).normal(size=(2, T.size))
    return jnp.asarray(0.05 * (draws[0] + 1j * draws[1]), dtype)


START = np.array([1.0, 0.2, 2.0])

LOSSES = {
    "sum_of_squares": (
        lambda d, model: so.sum_of_squares(lambda p: model(p) - d),
        lambda z, d: 0.5 * jnp.sum(side_by_side(z - d) ** 2),
    ),
    "squared_error": (
        lambda d, model: so.compose(so.squared_error(d), model),
        lambda z, d: 0.5 * jnp.sum(side_by_side(z - d) ** 2) / T.size,
    ),
    "soft_l1": (
        lambda d, model: so.compose(so.losses.soft_l1(1.0), lambda p: model(p) - d),
        lambda z, d: jnp.sum(jnp.sqrt(1 + side_by_side(z - d) ** 2) - 1),
    ),
    "a loss of one's own": (
        lambda d, model: so.compose(lambda z: jnp.sum(jnp.abs(z - d) ** 4), model),
        lambda z, d: jnp.sum((jnp.real(z - d) ** 2 + jnp.imag(z - d) ** 2) ** 2),
    ),
    "two outputs": (
        lambda d, model: so.compose(
            so.losses.total(so.squared_error(d), so.losses.half_sum_of_squares()),
            lambda p: (model(p), p),
        ),
        None,
    ),
}


def brute(name, data, params):
    """Value, gradient and ``Jᵀ ∇²ℓ J`` with the parts written out by hand."""
    of = LOSSES[name][1] or LOSSES["squared_error"][1]
    n = T.size
    loss = lambda x: of(jax.lax.complex(x[:n], x[n:]), data)
    outputs = lambda p: side_by_side(wave(p))
    j, x = jax.jacfwd(outputs)(params), outputs(params)
    value, grad, b = loss(x), jax.grad(loss)(x) @ j, j.T @ jax.hessian(loss)(x) @ j
    if name == "two outputs":
        value, grad, b = value + 0.5 * params @ params, grad + params, b + jnp.eye(3)
    return value, grad, b


@pytest.mark.quick(2)
@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("precise", [True, False])
def test_gauss_newton_is_that_of_the_parts_side_by_side(precise, name):
    with jax.enable_x64(precise):
        params = jnp.asarray(START)
        data = wave(jnp.asarray(TRUTH, params.dtype)) + noise(0, wave(params).dtype)

        @jax.jit
        def found(params):
            f = LOSSES[name][0](data, wave)
            op = so.ggn(f, params)
            rows, residual = op.factor(), op.residual()
            products = oracles.matrix(op.mv, params)
            value, grad = jax.value_and_grad(f)(params)
            return value, (grad, rows.T @ residual), (products, so.dense(op, params), rows.T @ rows)

        value, grads, matrices = found(params)
        expected = jax.jit(lambda p: brute(name, data, p))(params)
        tolerance = 1e4 * float(jnp.finfo(params.dtype).eps)
        assert value.dtype == params.dtype
        assert oracles.relative_error(value, expected[0]) < tolerance
        for grad in grads:
            assert oracles.relative_error(grad, expected[1]) < tolerance
        for matrix in matrices:
            assert oracles.relative_error(matrix, expected[2]) < tolerance


@pytest.mark.slow
def test_jacobians_of_complex_outputs_are_complex_in_every_mode(x64):
    p = jnp.asarray(START)
    fn = lambda p: {"z": wave(p), "x": p[0] * p[1]}
    parts = jax.jacfwd(lambda p: side_by_side(wave(p)))(p)
    for mode in ("auto", "forward", "reverse"):
        for chunk in (None, 4):
            found = so.jacobian(fn, p, mode=mode, chunk_size=chunk)
            np.testing.assert_allclose(found["z"], parts[: T.size] + 1j * parts[T.size :])
            np.testing.assert_allclose(found["x"], [p[1], p[0], 0])


@pytest.mark.slow
def test_single_examples_and_samples_of_complex_outputs(x64):
    p = jnp.asarray(START)
    data = wave(jnp.asarray(TRUTH)) + noise(1, jnp.complex128)
    f = so.per_example(so.squared_error(data), wave, jnp.asarray(T))
    expected = brute("squared_error", data, p)[2]

    @jax.jit
    def found(p):
        exact = [so.ggn(f, p), so.fisher(f, p)]
        drawn = so.fisher(f, p, jax.random.key(0), samples=3000)
        one_by_one = so.empirical_fisher(f, p)
        return [so.dense(op, p) for op in (*exact, drawn, one_by_one)]

    ggn, fisher, drawn, empirical = found(p)
    assert_close(ggn, expected)
    assert_close(fisher, expected)
    assert oracles.relative_error(drawn, expected) < 0.1
    one = lambda p, n: 0.5 * jnp.abs(wave(p)[n] - data[n]) ** 2
    slopes = jax.vmap(jax.grad(one), (None, 0))(p, jnp.arange(T.size))
    assert_close(empirical, slopes.T @ slopes / T.size)


@pytest.mark.slow
@pytest.mark.parametrize("precise", [True, False])
def test_a_fit_of_complex_data_is_that_of_its_parts(precise):
    with jax.enable_x64(precise):
        start = jnp.asarray(START)
        dtype = start.dtype
        data = wave(jnp.asarray(TRUTH, dtype)) + noise(2, wave(start).dtype)
        sigma = jnp.asarray(np.linspace(0.5, 2, T.size), dtype)

        @jax.jit
        def both(start):
            whole = so.curve_fit(lambda p, t: wave(p, t), T, data, start, sigma=sigma)
            split = so.curve_fit(
                lambda p, t: side_by_side(wave(p, t)),
                T,
                side_by_side(data),
                start,
                sigma=jnp.tile(sigma, 2),
            )
            band = whole.prediction_errors(wave, T)
            bands = split.prediction_errors(lambda p, t: side_by_side(wave(p, t)), T)
            return whole, split, side_by_side(band), bands

        whole, split, band, bands = both(start)
        assert bool(whole.solution.success) and bool(split.solution.success)
        root = float(jnp.finfo(dtype).eps) ** 0.5
        np.testing.assert_allclose(whole.params, split.params, rtol=root)
        np.testing.assert_allclose(whole.standard_errors, split.standard_errors, rtol=10 * root)
        np.testing.assert_allclose(band, bands, rtol=10 * root, atol=root)
        assert whole.degrees_of_freedom == split.degrees_of_freedom == 2 * T.size - 3


@pytest.mark.slow
def test_complex_observations_take_a_covariance_and_linear_parameters(x64):
    data = wave(jnp.asarray(TRUTH)) + noise(3, jnp.complex128)
    mixing = 0.1 * np.random.default_rng(4).normal(size=(T.size, T.size)) + np.eye(T.size)
    covariance = mixing @ mixing.T
    start = {"size": jnp.array(1.0), "rates": jnp.array([0.2, 2.0])}
    model = lambda p, t: wave(jnp.concatenate([p["size"][None], p["rates"]]), t)

    @jax.jit
    def fits(start):
        options = {"sigma": covariance}
        linear = {"separable": {"size": True, "rates": False}}
        return [so.curve_fit(model, T, data, start, **options, **o).params for o in ({}, linear)]

    root = np.linalg.inv(np.linalg.cholesky(covariance))
    white = lambda p: side_by_side(root @ (wave(p) - data))
    best = jax.jit(lambda p: so.least_squares(white, p).params)(jnp.array([1.0, 0.2, 2.0]))
    for found in fits(start):
        np.testing.assert_allclose([found["size"], *found["rates"]], best, rtol=1e-6)


def test_complex_outputs_where_they_have_no_meaning_are_refused_in_a_sentence():
    p, labels = jnp.ones(3), jnp.ones(T.size)
    logits = lambda p: wave(p)[:, None] * jnp.ones(2)
    for loss, model in (
        (so.sigmoid_cross_entropy(labels), wave),
        (so.poisson(labels), wave),
        (so.softmax_cross_entropy(labels.astype(int)), logits),
    ):
        with pytest.raises(TypeError, match="needs real outputs"):
            so.ggn(so.compose(loss, model), p).mv(p)
        with pytest.raises(TypeError, match="needs real outputs"):
            loss(model(p))
    with pytest.raises(TypeError, match="targets of SquaredError are complex"):
        so.ggn(so.compose(so.squared_error(1j * labels), lambda p: jnp.abs(wave(p))), p).mv(p)
    with pytest.raises(ValueError, match="complex sigma"):
        so.curve_fit(wave, T, wave(p), p, sigma=1j * labels)
    with pytest.raises(TypeError, match="pass the real and imaginary parts as two leaves"):
        so.least_squares(lambda p: jnp.abs(p), jnp.ones(2, complex))


def test_real_targets_of_complex_outputs_are_complex_without_an_imaginary_part(x64):
    p, y = jnp.ones(3), jnp.cos(T)
    f, same = (so.compose(so.squared_error(t), wave) for t in (y, y + 0j))
    np.testing.assert_allclose(f(p), same(p))
    np.testing.assert_allclose(so.squared_error(y)(wave(p)), same(p))
