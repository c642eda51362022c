"""An objective is a function of the parameters that remembers how it is made."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import oracles
import problems
import pytest
from tolerances import assert_close

import secondorder as so
from secondorder.objectives._base import objective_of
from secondorder.objectives._models import BatchedModel


@pytest.mark.quick(4)
@pytest.mark.parametrize("name", problems.SPLIT)
def test_an_objective_is_the_loss_after_the_model(name, x64):
    problem = problems.SPLIT[name](jnp.float64)
    forms = [problem.objective] if problem.batched is None else problem[:3:2]
    for objective in forms:
        value = jax.jit(objective)(problem.params)  # itself, not a function around it
        outputs = jax.jit(objective.model)(problem.params)
        assert value.shape == () and value.dtype == jnp.float64
        assert_close(value, oracles.loss_of(problem)(outputs))


def test_a_sum_of_squares_is_half_of_it_over_all_leaves():
    residual = lambda p: {"a": p, "b": (2 * jnp.sum(p), None)}
    f = so.sum_of_squares(residual)
    np.testing.assert_allclose(f(jnp.array([1.0, 2.0])), 0.5 * (1 + 4 + 36))
    assert f.model(jnp.array([1.0, 2.0]))["b"] == (6.0, None)


def test_examples_may_be_trees_of_arrays_integers_and_keys():
    keys = jax.random.split(jax.random.key(0), 3)
    examples = {"x": jnp.arange(3.0), "index": jnp.array([2, 0, 1]), "key": keys}

    def model(p, e):
        return p[e["index"]] * e["x"] + jax.random.normal(e["key"])

    p = jnp.array([1.0, 10.0, 100.0])
    f = so.per_example(so.squared_error(jnp.zeros(3)), model, examples)
    one_by_one = [model(p, jax.tree.map(lambda leaf, n=n: leaf[n], examples)) for n in range(3)]
    np.testing.assert_allclose(f.model(p), one_by_one, rtol=1e-6)


@pytest.mark.parametrize(
    "make",
    [
        lambda: so.compose("loss", jnp.sin),
        lambda: so.per_example("loss", jnp.sin, jnp.ones(2)),
    ],
)
def test_what_is_no_function_is_quoted_back(make):
    with pytest.raises(TypeError, match=r"needs loss to be a function, but got 'loss'"):
        make()
    with pytest.raises(TypeError, match=r"compose needs model to be a function, but got Array"):
        so.compose(jnp.sum, jnp.ones(1))
    with pytest.raises(TypeError, match="sum_of_squares needs residual to be a function"):
        so.sum_of_squares(None)
    with pytest.raises(TypeError) as swapped:
        so.minimize({"weights": jnp.ones(1000)}, jnp.sum)
    assert len(str(swapped.value)) < 200


@pytest.mark.parametrize(
    "examples",
    [
        (jnp.ones(3), jnp.ones(4)),
        {"x": jnp.ones((3, 2)), "n": jnp.array(1.0)},
        jnp.array(1.0),
        (),
        None,
    ],
    ids=["lengths", "number and array", "number", "nothing", "none"],
)
def test_ragged_examples_are_refused_with_their_shapes(examples):
    shapes = [jnp.shape(leaf) for leaf in jax.tree.leaves(examples)]
    with pytest.raises(ValueError, match="one common leading axis") as error:
        so.per_example(jnp.sum, lambda p, x: p, examples)
    assert str(shapes) in str(error.value)


def test_a_plain_function_is_quoted_with_what_to_pass():
    def my_function(p):
        return p

    with pytest.raises(TypeError, match=r"ggn needs the split.*my_function.*sum_of_squares"):
        objective_of(my_function).split("ggn")


# ----------------------------------------------------------------------------------------- restrict

PARAMS = {"w": {"k": jnp.array([1.0, 2.0]), "b": jnp.array(0.5)}, "v": jnp.array([3.0]), "n": None}
X, Y = problems.draw(0, 4, 2), problems.draw(1, 4)


def predict(p, x):
    return jnp.tanh(x @ p["w"]["k"] + p["w"]["b"]) * p["v"][0]


LOSS = so.squared_error(Y)
FORMS = {
    "plain": lambda p: LOSS(predict(p, X)),
    "compose": so.compose(LOSS, lambda p: predict(p, X)),
    "per_example": so.per_example(LOSS, predict, X),
}
gap = optax.MaskedNode()


GIVEN = {  # a tree with gaps, and where its numbers stand in the order of leaves: v, w.b, w.k
    "a leaf": ({"w": {"k": PARAMS["w"]["k"], "b": gap}, "v": PARAMS["v"], "n": None}, [0, 2, 3]),
    "a subtree": ({"w": gap, "v": PARAMS["v"], "n": None}, [0]),
    "two gaps": ({"w": PARAMS["w"], "v": gap, "n": gap}, [1, 2, 3]),
    "no gap": (PARAMS, [0, 1, 2, 3]),
}


@pytest.mark.quick(2)
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(("given", "index"), GIVEN.values(), ids=GIVEN)
def test_gaps_are_filled_and_derivatives_are_those_of_what_is_left(form, given, index):
    full = FORMS[form]
    f = so.restrict(full, PARAMS)
    assert type(f) is type(full)
    vector, unravel = jax.flatten_util.ravel_pytree(PARAMS)

    @jax.jit
    def parts():
        values = f(so.tree.scale(1.5, given)), full(unravel(vector.at[np.array(index)].mul(1.5)))
        hessians = so.dense(so.hessian(f, given), given), oracles.hessian(full, PARAMS)
        ggns = ()
        if form != "plain":
            ggns = so.dense(so.ggn(f, given), given), so.dense(so.ggn(full, PARAMS), PARAMS)
        return values, jax.grad(f)(given), hessians, ggns

    values, slope, hessians, ggns = parts()
    np.testing.assert_allclose(*values, rtol=1e-6)
    assert jax.tree.structure(slope) == jax.tree.structure(given)
    for matrices in filter(None, (hessians, ggns)):
        expected = matrices[1][np.ix_(index, index)]
        np.testing.assert_allclose(matrices[0], expected, rtol=1e-4, atol=1e-6)


def test_a_restricted_per_example_objective_still_knows_its_examples():
    f = so.restrict(FORMS["per_example"], PARAMS)
    assert isinstance(f.model, BatchedModel) and f.loss is LOSS


@pytest.mark.parametrize(
    "mask",
    [
        {"w": {"k": True, "b": False}, "v": False, "n": None},
        {"w": {"k": True, "b": False}, "v": False, "n": True},
        lambda params: {"w": {"k": True, "b": False}, "v": False, "n": None},
    ],
    ids=["tree", "a flag for nothing", "function"],
)
@pytest.mark.parametrize("form", FORMS)
def test_masked_leaves_are_held_even_if_given(form, mask):
    f = so.restrict(FORMS[form], PARAMS, mask)
    moved = jax.tree.map(lambda x: 2 * x, PARAMS)
    expected = {"w": {"k": moved["w"]["k"], "b": PARAMS["w"]["b"]}, "v": PARAMS["v"]}
    np.testing.assert_allclose(f(moved), FORMS[form](expected), rtol=1e-6)
    slope = jax.grad(f)(moved)
    assert slope["w"]["b"] == 0 and slope["v"] == 0 and jnp.any(slope["w"]["k"] != 0)


def test_a_mask_may_be_a_prefix():
    f = so.restrict(FORMS["compose"], PARAMS, {"w": False, "v": True, "n": True})
    slope = jax.grad(f)(PARAMS)
    assert jnp.all(slope["w"]["k"] == 0) and slope["w"]["b"] == 0 and slope["v"] != 0


def test_one_restricted_objective_serves_every_group_of_a_partition():
    f = so.restrict(FORMS["compose"], PARAMS)
    seen = []

    def record(name):
        def update(updates, state, params, *, value_fn, **extra):
            seen.append((name, so.dense(so.ggn(value_fn, params), params).shape))
            return updates, state

        return optax.GradientTransformationExtraArgs(lambda params: (), update)

    labels = {"w": "inner", "v": "outer", "n": "outer"}
    tx = optax.partition({"inner": record("inner"), "outer": record("outer")}, labels)
    grads = jax.grad(FORMS["compose"])(PARAMS)
    tx.update(grads, tx.init(PARAMS), PARAMS, value_fn=f)
    assert sorted(seen) == [("inner", (3, 3)), ("outer", (1, 1))]
