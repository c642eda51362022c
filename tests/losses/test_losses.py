"""Every loss: its value by another's formula, its slope and curvature by finite differences."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import oracles
import pytest
import scipy.optimize
import scipy.stats
from problems import draw
from tolerances import assert_close, condition_of, rounding

import secondorder as so
from secondorder.losses import AnyLoss, Elementwise, Loss, as_loss

Z = np.asarray(draw(0, 3, 4), np.float64)
T = np.asarray(draw(1, 3, 4), np.float64)
COUNTS = np.array([[0, 1, 5, 2], [3, 0, 0, 1], [2, 2, 4, 1]], np.float64)
LABELS = np.array([2, 0, 3], np.int32)
CHANCES = 1 / (1 + np.exp(-T))
SOFT = CHANCES / CHANCES.sum(-1, keepdims=True)
RHO = {"huber": so.huber, "soft_l1": so.soft_l1, "cauchy": so.cauchy, "arctan": so.arctan}


def coupled(z):
    """A convex loss in no closed form, on a tree."""
    joined = jnp.concatenate([z["a"].ravel(), z["b"].ravel()])
    return jax.nn.logsumexp(joined) + 0.1 * jnp.sum(joined**4) + 0.5 * jnp.sum(joined) ** 2


# loss, outputs, value by a formula from elsewhere
TREE = {"a": Z, "b": Z[:, 0], "c": None}
TREE_TARGETS = {"a": T, "b": T[:, 1], "c": None}
CASES = {
    "squared_error": (so.squared_error(T), Z, np.mean(np.sum((Z - T) ** 2, -1)) / 2),
    "squared_error of a tree": (
        so.squared_error(TREE_TARGETS),
        TREE,
        np.mean(np.sum((Z - T) ** 2, -1) + (Z[:, 0] - T[:, 1]) ** 2) / 2,
    ),
    "squared_error of a number": (so.squared_error(0.5), np.array(2.0), 1.125),
    "sigmoid_cross_entropy": (
        so.sigmoid_cross_entropy(CHANCES),
        Z,
        lambda: np.mean(np.sum(optax.sigmoid_binary_cross_entropy(Z, CHANCES), -1)),
    ),
    "poisson": (
        so.poisson(COUNTS),
        Z,
        -np.mean(
            np.sum(
                scipy.stats.poisson.logpmf(COUNTS, np.exp(Z)) + scipy.special.gammaln(COUNTS + 1),
                -1,
            )
        ),
    ),
    "softmax with integers": (
        so.softmax_cross_entropy(LABELS),
        Z,
        lambda: np.mean(optax.softmax_cross_entropy_with_integer_labels(Z, LABELS)),
    ),
    "softmax with one-hot labels": (
        so.softmax_cross_entropy(np.eye(4)[LABELS]),
        Z,
        lambda: np.mean(optax.softmax_cross_entropy_with_integer_labels(Z, LABELS)),
    ),
    "softmax with soft labels": (
        so.softmax_cross_entropy(SOFT),
        Z,
        lambda: np.mean(optax.softmax_cross_entropy(Z, SOFT)),
    ),
    "softmax of a sequence": (
        so.softmax_cross_entropy(LABELS.reshape(1, 3)),
        Z.reshape(1, 3, 4),
        lambda: np.mean(optax.softmax_cross_entropy_with_integer_labels(Z, LABELS)),
    ),
    "softmax of one example": (
        so.softmax_cross_entropy(LABELS[0]),
        Z[0],
        lambda: optax.softmax_cross_entropy_with_integer_labels(Z[0], LABELS[0]),
    ),
    "half_sum_of_squares": (so.losses.half_sum_of_squares(), Z, np.sum(Z**2) / 2),
    "huber": (so.huber(0.7), Z, lambda: np.sum(optax.huber_loss(Z, delta=0.7))),
    "soft_l1": (so.soft_l1(2.0), Z, np.sum(4 * (np.sqrt(1 + (Z / 2) ** 2) - 1))),
    "cauchy": (so.cauchy(6.0), Z, np.sum(18 * np.log1p((Z / 6) ** 2))),
    "arctan": (so.arctan(6.0), Z, np.sum(18 * np.arctan((Z / 6) ** 2))),
    "a total": (
        so.losses.total(so.poisson(COUNTS), so.losses.half_sum_of_squares()),
        (Z, {"a": T, "b": Z[:2, 0], "c": None}),
        np.mean(np.sum(np.exp(Z) - COUNTS * Z, -1)) + np.sum(T**2) / 2 + np.sum(Z[:2, 0] ** 2) / 2,
    ),
    "a total in a total": (
        so.losses.total(
            so.softmax_cross_entropy(LABELS),
            so.losses.total(lambda z: jnp.sum(jnp.cosh(z)), so.squared_error(T)),
        ),
        [Z, (T[0], Z)],
        lambda: (
            np.mean(optax.softmax_cross_entropy_with_integer_labels(Z, LABELS))
            + np.sum(np.cosh(T[0]))
            + np.mean(np.sum((Z - T) ** 2, -1)) / 2
        ),
    ),
    "a plain function": (AnyLoss(coupled), {"a": Z[:2, :2], "b": Z[2]}, None),
}
LIKELIHOODS = [
    "squared_error of a tree",
    "sigmoid_cross_entropy",
    "poisson",
    "softmax with integers",
    "softmax of a sequence",
    "half_sum_of_squares",
    "a total",
]


def outputs_of(name, dtype=jnp.float64):
    return jax.tree.map(lambda z: jnp.asarray(np.asarray(z, dtype)), CASES[name][1])


@pytest.mark.quick(5)
@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case[2] is not None])
def test_the_value_is_the_formula(name, x64):
    loss, _, formula = CASES[name]
    value = jax.jit(loss)(outputs_of(name))
    assert value.shape == () and value.dtype == jnp.float64
    assert_close(value, formula() if callable(formula) else formula)


@pytest.mark.quick(6)
@pytest.mark.parametrize("name", CASES)
def test_slope_and_curvature_agree_with_finite_differences(name, x64):
    loss, _, _ = CASES[name]
    z = outputs_of(name)
    slope = oracles.finite_differences(loss, z)[0]
    gradient = jax.jit(jax.grad(loss))
    np.testing.assert_allclose(oracles.flat(gradient(z)), slope, rtol=1e-7, atol=1e-8)
    if name == "huber":  # it has a kink in its slope: what curvature is there, is tested below
        return
    m = oracles.finite_differences(jax.grad(loss), z)
    found = jax.jit(lambda z: oracles.matrix(functools.partial(loss.curvature, z), z))(z)
    assert oracles.relative_error(found, m) < 1e-8


@pytest.mark.quick(6)
@pytest.mark.parametrize("name", CASES)
def test_the_root_and_the_residual_split_the_curvature_and_the_slope(name, x64):
    loss, _, _ = CASES[name]

    @jax.jit
    def parts(z):
        of = lambda product: oracles.matrix(functools.partial(product, z), z)
        r = loss.residual(z)
        slopes = loss.root(z, r), jax.grad(loss)(z)
        return of(loss.curvature), of(loss.root), of(loss.root_transpose), slopes

    m, s, transposed, (through_root, slope) = parts(outputs_of(name))
    assert oracles.relative_error(s @ s.T, m) < rounding()
    assert oracles.relative_error(transposed, s.T) < rounding()
    assert_close(oracles.flat(through_root), oracles.flat(slope), condition_of(m))


@pytest.mark.quick(2)
@pytest.mark.parametrize("name", LIKELIHOODS)
def test_samples_have_the_curvature_for_their_second_moment(name):
    loss, _, _ = CASES[name]
    seeds = 2000

    @jax.jit
    def moments(z):
        keys = jax.random.split(jax.random.key(7), seeds)
        joined = lambda tree: jnp.concatenate([x.ravel() for x in jax.tree.leaves(tree)])
        v = jax.vmap(lambda key: joined(loss.sample(key, z)))(keys)
        outer = v[:, :, None] * v[:, None, :]
        m = oracles.matrix(functools.partial(loss.curvature, z), z)
        return m, jnp.mean(outer, 0), jnp.std(outer, 0) / np.sqrt(seeds), jnp.mean(v, 0)

    m, mean, bar, first = map(np.asarray, moments(outputs_of(name, jnp.float32)))
    assert np.all(np.abs(mean - m) < 5 * bar + 1e-6)
    assert np.all(np.diag(bar) < 0.2 * np.diag(m))  # else the line above could not fail
    assert np.all(np.abs(first) < 5 * np.sqrt(np.diag(m) / seeds))  # a score has mean zero


def test_examples_and_leaves_are_drawn_independently():
    z = {"a": jnp.zeros((2, 3)), "b": jnp.zeros((2, 3))}
    v = so.squared_error(z).sample(jax.random.key(0), z)
    assert len(np.unique(oracles.flat(v))) == 12


# ----------------------------------------------------------------------------------- sums of losses


def test_the_terms_of_a_total_are_drawn_independently():
    z = (jnp.zeros((2, 3)), jnp.zeros((2, 3)))
    loss = so.losses.total(so.squared_error(z[0]), so.squared_error(z[1]))
    assert len(np.unique(oracles.flat(loss.sample(jax.random.key(0), z)))) == 12


def test_a_total_measures_least_squares_where_all_of_its_terms_do():
    squares, odds = so.losses.half_sum_of_squares(), so.sigmoid_cross_entropy(jnp.zeros(2))
    assert so.losses.total(squares, so.huber(), so.squared_error(jnp.zeros(2))).least_squares
    assert not so.losses.total(squares, odds).least_squares


def test_a_total_keeps_the_kind_of_tuple_it_is_given():
    class Named(NamedTuple):
        fit: Any
        prior: Any

    z = Named(jnp.ones(2), jnp.ones(3))
    loss = so.losses.total(so.squared_error(jnp.zeros(2)), so.losses.half_sum_of_squares())
    for found in (loss.curvature(z, z), loss.residual(z), loss.sample(jax.random.key(0), z)):
        assert jax.tree.structure(found) == jax.tree.structure(z)


@pytest.mark.parametrize("z", [jnp.ones(2), (jnp.ones(2),), {"a": jnp.ones(2), "b": jnp.ones(2)}])
def test_outputs_that_are_no_tuple_of_as_many_are_refused(z):
    squares = so.losses.half_sum_of_squares()
    loss = so.losses.total(squares, squares)
    for use in (lambda: loss(z), lambda: loss.curvature(z, z), lambda: loss.residual(z)):
        with pytest.raises(ValueError, match="total of 2 losses needs .* a tuple of 2 outputs"):
            use()
    with pytest.raises(ValueError, match="at least one loss"):
        so.losses.total()
    with pytest.raises(TypeError, match="total needs losses, one by one"):
        so.losses.total([so.huber(), so.huber()])


def test_a_total_has_no_examples_and_says_so():
    z = (jnp.ones(2), jnp.ones(3))
    loss = so.losses.total(so.losses.half_sum_of_squares(), so.soft_l1())
    with pytest.raises(TypeError, match="no examples of its own"):
        loss.weight(z)
    with pytest.raises(TypeError, match="no examples of its own"):
        loss.example_axes(z[0])
    with pytest.raises(TypeError, match="not the negative log-likelihood"):
        loss.sample(jax.random.key(0), z)


# ------------------------------------------------------------------------------------ robust losses


@pytest.mark.parametrize("scale", [0.5, 3.0])
@pytest.mark.parametrize("name", RHO)
def test_a_robust_loss_is_scipys(name, scale, x64):
    r = np.array([0.0, 0.1, -0.4, 2.0, -9.0, 30.0])
    peer = scipy.optimize.least_squares(
        lambda x: x, r, jac=lambda x: np.eye(6), loss=name, f_scale=scale, max_nfev=1
    )
    np.testing.assert_array_equal(peer.x, r)  # it has not moved: the cost is that of r
    value, slope = jax.jit(jax.value_and_grad(RHO[name](scale)))(jnp.asarray(r))
    assert_close(value, peer.cost)
    np.testing.assert_allclose(slope, peer.grad, rtol=rounding())


@pytest.mark.parametrize("name", RHO)
def test_robust_curvature_is_exact_near_zero_and_positive_far_out(name, x64):
    loss = RHO[name](2.0)
    r = np.concatenate([np.linspace(-1, 1, 20), np.geomspace(1.1, 1e6, 200)])

    @jax.jit
    def parts(r):
        second = jax.vmap(jax.grad(jax.grad(loss)))(r)
        return loss.curvature(r, jnp.ones_like(r)), jax.grad(loss)(r), second

    bend, slope, second = map(np.asarray, parts(r))
    weight = slope / r  # ρ', the weight of iteratively reweighted least squares
    assert np.all(bend > 0) and np.all(bend <= 1 + rounding())
    np.testing.assert_allclose(bend[:20], second[:20], rtol=rounding())
    is_close = functools.partial(np.isclose, rtol=rounding(100), atol=0)
    exact = is_close(bend, second)
    reweighted = is_close(bend, weight)
    assert np.all(exact | reweighted)
    assert np.all(reweighted | (second > 0))  # where the loss bends down, the weight takes over
    assert np.all(np.abs(slope / bend) <= 10 * np.abs(r))  # no step leaps far beyond the residual
    assert weight[-1] < 0.01 * weight[0]  # an outlier pulls less


# Where the docstring of Robust says that the correction ends, in units of the scale.
REACH = {"huber": 1.0, "soft_l1": 3.0, "cauchy": (0.9 / 1.1) ** 0.5, "arctan": (0.9 / 3.1) ** 0.25}


@pytest.mark.quick(1)
@pytest.mark.parametrize("name", RHO)
def test_the_second_order_weight_is_dropped_where_the_docstring_says(name, x64):
    loss, scale = RHO[name](2.0), 2.0
    r = scale * REACH[name] * jnp.array([1 - 1e-6, 1 + 1e-6])
    bend, second = loss.curvature(r, jnp.ones(2)), jax.vmap(jax.grad(jax.grad(loss)))(r)
    weight = jax.grad(loss)(r) / r
    np.testing.assert_allclose(bend, [second[0], weight[1]], rtol=rounding(100))
    assert weight[1] > second[1] + 0.05  # else the line above could not tell them apart


# -------------------------------------------------------------------------- hopeless and odd inputs

SATURATED = {
    "sigmoid": (so.sigmoid_cross_entropy(jnp.array([1.0, 0.0, 1.0])), [-200.0, 200.0, 0.3]),
    "poisson": (so.poisson(jnp.array([1.0, 0.0, 2.0])), [-200.0, -200.0, 0.5]),
    "softmax": (
        so.softmax_cross_entropy(jnp.array([0, 1, 2])),
        [[-200.0, 0.0, 1.0], [300.0, 0.0, 0.0], [0.1, 0.2, 0.3]],
    ),
}


@pytest.mark.parametrize("name", SATURATED)
def test_a_confident_mistake_keeps_its_slope_and_breaks_nothing(name):
    loss, z = SATURATED[name]

    @jax.jit
    def parts(z):
        r, ones = loss.residual(z), jnp.ones_like(z)
        products = [p(z, ones) for p in (loss.curvature, loss.root, loss.root_transpose)]
        return jax.grad(loss)(z), loss.root(z, r), r, loss(z), *products

    slope, through_root, *others = parts(jnp.array(z))
    np.testing.assert_allclose(through_root, slope, rtol=1e-4, atol=1e-6)
    assert all(np.all(np.isfinite(x)) for x in (slope, *others))


def test_a_row_of_zero_labels_is_padding():
    labels, z = jnp.array([[0.0, 1.0, 0.0], [0.0, 0.0, 0.0]]), draw(2, 2, 3)
    padded, alone = so.softmax_cross_entropy(labels), so.softmax_cross_entropy(labels[:1])

    @jax.jit
    def parts(z):
        r = padded.residual(z)
        values = padded(z), 0.5 * alone(z[:1])
        return values, jax.grad(padded)(z), padded.root(z, r), r, padded.curvature(z, z)

    values, slope, through_root, r, bend = parts(z)
    np.testing.assert_allclose(*values, rtol=1e-6)
    np.testing.assert_allclose(through_root, slope, atol=1e-6)
    assert np.all(r[1] == 0) and np.all(bend[1] == 0)


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int16", "uint32", "int32"])
def test_integer_labels_come_in_any_width(dtype):
    z = draw(3, 2, 300)  # more classes than a byte can count
    narrow = so.softmax_cross_entropy(np.array([127, 5], dtype))
    wide = so.softmax_cross_entropy(np.eye(300)[[127, 5]])
    parts = jax.jit(lambda z: [(loss(z), loss.residual(z)) for loss in (narrow, wide)])
    for found, expected in zip(*parts(z), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("label", [-1, 3, 7])
def test_a_class_that_does_not_exist_is_not_passed_over(label):
    z = draw(4, 2, 3)
    value = jax.jit(lambda labels: so.softmax_cross_entropy(labels)(z))
    assert jnp.isnan(value(jnp.array([0, label]))) and jnp.isfinite(value(jnp.array([0, 2])))


@pytest.mark.quick(1)
@pytest.mark.parametrize("labels", ["integer", "one-hot"])
def test_an_impossible_class_does_no_harm(labels):
    z = jnp.array([[0.5, -jnp.inf, 1.0], [0.2, 0.3, -jnp.inf]])
    classes = jnp.array([0, 1])
    loss = so.softmax_cross_entropy(classes if labels == "integer" else jnp.eye(3)[classes])
    possible = (jnp.array([0, 0, 1, 1]), jnp.array([0, 2, 0, 1]))
    within = lambda x: x[possible].reshape(2, 2)
    without = so.softmax_cross_entropy(classes)

    @functools.partial(jax.jit, static_argnums=0)
    def parts(loss, z):
        r = loss.residual(z)
        u = jnp.arange(1.0, 1.0 + z.size).reshape(z.shape)
        products = [p(z, u) for p in (loss.curvature, loss.root, loss.root_transpose)]
        curved = jnp.diagonal(jax.hessian(loss)(z).reshape(z.size, -1)).reshape(z.shape)
        return loss(z), jax.grad(loss)(z), r, loss.root(z, r), curved, products

    value, slope, r, through_root, curved, products = parts(loss, z)
    expected, its_slope, its_r, _, its_curved, _ = parts(without, within(z))
    np.testing.assert_allclose(value, expected, rtol=1e-6)
    for found, exact in ((slope, its_slope), (r, its_r), (curved, its_curved)):
        np.testing.assert_allclose(within(found), exact, rtol=1e-5, atol=1e-7)
        assert found[0, 1] == found[1, 2] == 0
    np.testing.assert_allclose(through_root, slope, atol=1e-6)
    assert all(np.all(np.isfinite(x)) for x in products)


@pytest.mark.slow
def test_a_label_on_an_impossible_class_is_infinitely_wrong():
    z = jnp.array([[0.5, -jnp.inf, 1.0]])
    for labels in (jnp.array([1]), jnp.array([[0.0, 1.0, 0.0]])):
        assert so.softmax_cross_entropy(labels)(z) == jnp.inf


def test_the_slope_in_a_label_of_zero_is_minus_its_log_probability():
    z, t = draw(6, 1, 3), jnp.array([[0.0, 1.0, 0.0]])
    slope = jax.grad(lambda t: so.softmax_cross_entropy(t)(z))(t)
    np.testing.assert_allclose(slope, -jax.nn.log_softmax(z), rtol=1e-6)


def test_a_robust_loss_without_a_scale_or_a_shape_is_least_squares():
    r = draw(5, 4)
    for found, expected in zip(
        *(
            (f(r), jax.grad(f)(r), f.curvature(r, r))
            for f in (so.losses.Robust(), so.losses.half_sum_of_squares())
        ),
        strict=True,
    ):
        np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_a_mean_of_bfloat16_outputs_is_taken_in_float32():
    z = jnp.full((1, 4096), 1.0, jnp.bfloat16)
    for loss, expected in (
        (so.squared_error(jnp.zeros((1, 4096))), 2048.0),
        (so.sigmoid_cross_entropy(jnp.ones((1, 4096))), 4096 * np.log1p(np.exp(-1.0))),
        (so.losses.half_sum_of_squares(), 2048.0),
        (so.softmax_cross_entropy(jnp.array([1])), np.log(4096)),
    ):
        value = jax.jit(loss)(z)
        assert value.dtype == jnp.float32
        np.testing.assert_allclose(value, expected, rtol=1e-5)
        for dtype in (jnp.bfloat16, jnp.float32):
            v = jax.ShapeDtypeStruct(z.shape, dtype)
            for product in (loss.curvature, loss.root, loss.root_transpose):
                assert jax.eval_shape(product, z, v).dtype == dtype
        assert jax.eval_shape(loss.residual, z).dtype == jnp.float32
        assert jax.eval_shape(loss.sample, jax.random.key(0), z).dtype == jnp.float32


def test_no_examples_make_a_loss_of_zero():
    for loss, shape in (
        (so.squared_error(jnp.zeros((0, 2))), (0, 2)),
        (so.softmax_cross_entropy(jnp.zeros((0,), jnp.int32)), (0, 3)),
    ):
        assert loss(jnp.zeros(shape)) == 0


# ----------------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize("make", [so.squared_error, so.sigmoid_cross_entropy, so.poisson])
@pytest.mark.parametrize(
    ("targets", "outputs"),
    [((4,), (4, 1)), ((4, 1), (4,)), ((1, 3), (4, 3)), ((4,), ()), ((), (4,)), ((3,), (4, 3))],
)
def test_targets_that_would_broadcast_are_refused(make, targets, outputs):
    loss, z = make(jnp.ones(targets)), jnp.ones(outputs)
    sentence = rf"target of \w+ has shape {targets}, but the model's output has shape {outputs}"
    for use in (
        lambda: loss(z),
        lambda: loss.curvature(z, z),
        lambda: loss.root(z, z),
        lambda: loss.residual(z),
    ):
        with pytest.raises(ValueError, match=sentence.replace("(", r"\(").replace(")", r"\)")):
            use()


def test_targets_of_another_tree_are_refused():
    with pytest.raises(ValueError, match="must have the tree structure of the model's output"):
        so.squared_error({"a": jnp.ones(2)})({"b": jnp.ones(2)})
    with pytest.raises(ValueError, match=r"target of SquaredError\['a'\] has shape \(3,\)"):
        so.squared_error({"a": jnp.ones(3)})({"a": jnp.ones(2)})


@pytest.mark.parametrize(
    "labels",
    [
        jnp.zeros(4, jnp.int32),
        jnp.zeros((3, 1), jnp.int32),
        jnp.zeros((3, 5)),
        jnp.zeros(3),
        jnp.array(1),
        jnp.zeros((1, 4)),
    ],
    ids=lambda x: f"{x.shape}-{x.dtype}",
)
def test_labels_that_fit_no_logits_are_refused_with_what_would(labels):
    loss, z = so.softmax_cross_entropy(labels), jnp.ones((3, 4))
    for use in (lambda: loss(z), lambda: loss.curvature(z, z), lambda: loss.residual(z)):
        with pytest.raises(
            ValueError, match=r"integer labels of shape \(3,\) or one-hot .*\(3, 4\)"
        ):
            use()


def test_softmax_of_a_tree_is_refused():
    loss, z = so.softmax_cross_entropy(jnp.zeros(2, jnp.int32)), {"logits": jnp.ones((2, 3))}
    for use in (lambda: loss(z), lambda: loss.curvature(z, z)):
        with pytest.raises(ValueError, match="one array of logits"):
            use()


def test_a_mean_over_leaves_of_different_lengths_is_refused():
    z = {"a": jnp.ones(3), "b": jnp.ones((2, 2))}
    with pytest.raises(ValueError, match=r"leading axis.*\[\(3,\), \(2, 2\)\]"):
        so.squared_error(z)(z)
    np.testing.assert_allclose(so.losses.half_sum_of_squares()(z), 3.5)  # a sum needs no examples


def test_a_loss_that_lacks_a_part_says_which():
    class Nothing(Loss):
        pass

    z = jnp.ones(2)
    for use, part in (
        (lambda loss: loss(z), "value"),
        (lambda loss: loss.curvature(z, z), "curvature product"),
        (lambda loss: loss.root(z, z), "root"),
        (lambda loss: loss.residual(z), "residual"),
        (lambda loss: loss.weight(z), "terms for single examples"),
        (lambda loss: loss.sample(jax.random.key(0), z), "not the negative log-likelihood"),
    ):
        with pytest.raises(TypeError, match=part):
            use(Nothing())


# --------------------------------------------------------------------------------- losses of others


class LogCosh(Elementwise):
    """What a user writes: one term, its slope and its bend."""

    def phi(self, z, t):
        return jnp.log(jnp.cosh(z - t))

    def slope(self, z, t):
        return jnp.tanh(z - t)

    def bend(self, z, t):
        return 1 / jnp.cosh(z - t) ** 2


def test_a_users_own_loss_has_all_of_it(x64):
    z, t = jnp.asarray(Z), jnp.asarray(T)
    own, plain = LogCosh(t), AnyLoss(lambda z: jnp.mean(jnp.sum(jnp.log(jnp.cosh(z - t)), -1)))
    assert_close(own(z), plain(z))
    assert_close(own.curvature(z, z), plain.curvature(z, z))
    assert_close(own.root(z, own.residual(z)), jax.grad(plain)(z))
    assert as_loss(own) is own
    with pytest.raises(TypeError, match="no targets to sample"):
        own.sample(jax.random.key(0), z)


def test_a_plain_loss_that_bends_down_has_the_root_of_its_upward_part_and_of_weights(x64):
    loss = as_loss(lambda z: z[0] ** 2 - 3 * z[1] ** 2 + 5 * z[2])

    @jax.jit
    def parts(z):
        s = oracles.matrix(functools.partial(loss.root, z), z)
        return s @ s.T, loss.curvature(z, jnp.ones(3)), loss.root(z, loss.residual(z))

    upward, product, slope = parts(jnp.array([1.0, 2.0, 3.0]))
    assert_close(upward, np.diag([2.0, 0.0, 5 / 3]))
    assert_close(product, [2.0, -6.0, 0.0])
    assert_close(slope, [2.0, 0.0, 5.0])  # what the root can reach


# --------------------------------------------------------- a loss of one's own without curvature


def own_huber(r):
    return jnp.sum(jnp.where(jnp.abs(r) <= 0.1, 0.5 * r**2, 0.1 * (jnp.abs(r) - 0.05)))


def own_cauchy(r):
    return 0.5 * jnp.sum(jnp.log1p(r**2))


@pytest.mark.parametrize("own, library", [(own_huber, so.huber(0.1)), (own_cauchy, so.cauchy(1.0))])
def test_a_loss_of_ones_own_beyond_its_bend_has_the_weights_of_the_library(x64, own, library):
    r = jnp.array([3.0, -7.0, 1.5, 20.0])  # no curvature anywhere, or a negative one

    @jax.jit
    def parts(r):
        loss, unit = as_loss(own), jnp.ones_like(r)
        return [
            (f.root(r, f.root_transpose(r, unit)), f.root(r, f.residual(r)))
            for f in (loss, library)
        ]

    (found, slope), (expected, _) = parts(r)
    assert_close(found, expected)
    assert_close(slope, jax.grad(own)(r))


@pytest.mark.slow
@pytest.mark.parametrize("precise", [True, False])
@pytest.mark.parametrize("method", [so.levenberg_marquardt, so.natural_gradient])
def test_a_fit_with_a_loss_of_ones_own_leaves_a_start_without_curvature(precise, method):
    with jax.enable_x64(precise):
        t = jnp.linspace(0.0, 2.0, 20)
        y = 3 * jnp.exp(-1.5 * t) + 4.0 * (jnp.arange(20) % 9 == 5)
        residual = lambda p: p[0] * jnp.exp(-p[1] * t) - y

        def fit(loss, p):
            return so.least_squares(residual, p, method(), loss=loss)

        starts = jnp.array([[8.0, 0.1], [30.0, 0.0]])
        found, expected = jax.jit(
            lambda p: [jax.vmap(lambda p, f=f: fit(f, p))(p) for f in (own_huber, so.huber(0.1))]
        )(starts)
        assert np.all(found.success)
        root = float(jnp.finfo(t.dtype).eps) ** 0.5
        np.testing.assert_allclose(found.params, expected.params, rtol=10 * root)


def test_a_convex_loss_of_ones_own_gets_no_weight_where_it_has_no_slope(x64):
    # the logits' common shift: neither curvature nor slope, but for rounding
    labels = jnp.array([0, 2, 1])
    own = lambda z: -jnp.mean(jax.nn.log_softmax(z)[jnp.arange(3), labels])
    z = jnp.asarray(Z)
    loss, library = as_loss(own), so.softmax_cross_entropy(labels)

    @jax.jit
    def matrices(z):
        return [
            oracles.matrix(lambda u, f=f: f.root(z, f.root_transpose(z, u)), z)
            for f in (loss, library)
        ]

    found, expected = matrices(z)
    assert_close(found, expected, norm=1)


def test_a_sample_of_many_outputs_is_the_symmetric_root_of_the_curvature_times_signs():
    labels = jnp.arange(128) % 100
    z = 3 * jax.random.normal(jax.random.key(0), (128, 100))
    own = as_loss(lambda z: -jnp.mean(jax.nn.log_softmax(z)[jnp.arange(128), labels]))
    with pytest.raises(ValueError, match="dense root"):
        own.root(z, z)
    signs = so.tree.random_signs(jax.random.key(1), z)
    p = np.asarray(jax.nn.softmax(z), np.float64)
    blocks = (p[:, :, None] * np.eye(100) - p[:, :, None] * p[:, None, :]) / 128
    w, v = np.linalg.eigh(blocks)
    roots = (v * np.sqrt(np.maximum(w, 0))[:, None, :]) @ v.transpose(0, 2, 1)
    expected = np.einsum("nij,nj->ni", roots, signs)
    assert oracles.relative_error(jax.jit(own.signed)(z, signs), expected) < 0.05
