"""Samples of curvature, in expectation over many draws, against the dense matrices."""

import jax
import jax.flatten_util
import jax.numpy as jnp
import numpy as np
import pytest

import secondorder as so
from secondorder.curvature import fisher_sample, ggn_sample, gradient, hutchinson, per_example

DRAWS = 20_000
X = jax.random.normal(jax.random.key(0), (5, 2))
PARAMS = {
    "w": 0.5 * jax.random.normal(jax.random.key(1), (2, 3)),
    "b": jnp.array([0.1, -0.2, 0.3], jnp.float32),
}
LABELS = jnp.array([0, 2, 1, 1, 0])


def model(p):
    return jnp.tanh(X @ p["w"]) * 1.5 + p["b"]


def objective(loss) -> so.Objective:
    return so.compose(loss, model)


SOFTMAX = objective(so.softmax_cross_entropy(LABELS))
SIGMOID = objective(so.sigmoid_cross_entropy(jnp.ones((5, 3)) * 0.5))
SQUARES = objective(so.squared_error(jnp.zeros((5, 3))))
POISSON = objective(so.poisson(jnp.ones((5, 3))))
HUBER = objective(so.huber(0.7))
GENERIC = objective(lambda z: jnp.mean(jax.nn.logsumexp(z, axis=-1)) + 0.1 * jnp.sum(z**2))
PAIR = so.compose(
    so.losses.total(so.softmax_cross_entropy(LABELS), so.losses.half_sum_of_squares()),
    lambda p: (model(p), 0.3 * p["w"]),
)

CASES = {
    "ggn of softmax": (ggn_sample, SOFTMAX, so.ggn),
    "ggn of sigmoid": (ggn_sample, SIGMOID, so.ggn),
    "ggn of huber": (ggn_sample, HUBER, so.ggn),
    "ggn of a plain loss": (ggn_sample, GENERIC, so.ggn),
    "ggn of a total": (ggn_sample, PAIR, so.ggn),
    "fisher of softmax": (fisher_sample, SOFTMAX, so.fisher),
    "fisher of squares": (fisher_sample, SQUARES, so.fisher),
    "fisher of counts": (fisher_sample, POISSON, so.fisher),
    "fisher of a total": (fisher_sample, PAIR, so.fisher),
    "empirical fisher": (per_example, SOFTMAX, so.empirical_fisher),
    "hessian": (hutchinson, SOFTMAX, so.hessian),
}


@pytest.mark.quick(2)
@pytest.mark.parametrize(("estimate", "f", "operator"), CASES.values(), ids=CASES)
def test_the_mean_of_outer_products_is_the_matrix(estimate, f, operator):
    expected = np.asarray(jax.jit(lambda p: so.dense(operator(f, p), p))(PARAMS))

    @jax.jit
    def moments(keys):
        def one(key):
            sample = estimate().draw(None, PARAMS, f, key)
            left, right = (jax.flatten_util.ravel_pytree(x)[0] for x in sample)
            return 0.5 * (jnp.outer(left, right) + jnp.outer(right, left))

        products = jax.vmap(one)(keys)
        return products.mean(0), products.std(0) / DRAWS**0.5

    mean, error = moments(jax.random.split(jax.random.key(3), DRAWS))
    # Sixty-odd entries: five standard errors leave one wrong alarm in ten thousand runs.
    assert np.all(np.abs(mean - expected) <= 5 * np.asarray(error) + 1e-5)


def test_the_gradient_is_what_it_was_given():
    g = jax.tree.map(lambda x: x.astype(jnp.bfloat16), PARAMS)
    sample = gradient().draw(g, None, None, None)
    assert sample.left is sample.right
    assert {x.dtype for x in jax.tree.leaves(sample)} == {jnp.dtype("float32")}


@pytest.mark.parametrize("estimate", [ggn_sample, fisher_sample, per_example, hutchinson])
def test_samples_are_carried_in_float32_at_least(estimate):
    low = jax.tree.map(lambda x: x.astype(jnp.bfloat16), PARAMS)
    f = so.compose(SOFTMAX.loss, lambda p: X.astype(jnp.bfloat16) @ p["w"] + p["b"])
    sample = jax.jit(lambda p, key: estimate().draw(None, p, f, key))(low, jax.random.key(0))
    assert {x.dtype for x in jax.tree.leaves(sample)} == {jnp.dtype("float32")}


@pytest.mark.parametrize("estimate", [ggn_sample, fisher_sample])
def test_no_matrix_of_classes_by_classes_is_formed(estimate):
    classes = 60_000  # whose square would take 14 GB
    p = {"w": jnp.zeros((2, classes))}
    f = so.compose(so.softmax_cross_entropy(LABELS), lambda p: X @ p["w"])
    sample = jax.jit(lambda p, key: estimate().draw(None, p, f, key))(p, jax.random.key(0))
    assert np.isfinite(sample.left["w"]).all()


@pytest.mark.parametrize("estimate", [ggn_sample, fisher_sample, per_example])
def test_a_plain_function_is_refused_with_what_to_pass(estimate):
    with pytest.raises(TypeError, match=r"compose\(loss, model\)"):
        estimate().draw(None, PARAMS, lambda p: 0.0, jax.random.key(0))


def test_a_loss_without_targets_has_no_fisher_sample():
    with pytest.raises(TypeError, match="no targets to sample"):
        fisher_sample().draw(None, PARAMS, HUBER, jax.random.key(0))
