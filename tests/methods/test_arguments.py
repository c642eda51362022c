"""What every method takes: ``trust``, decay with a mask, and names that mean one thing."""

import inspect
import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import secondorder as so

X = jnp.linspace(0.0, 1.0, 6).reshape(3, 2)
F = so.compose(so.squared_error(jnp.ones(3)), lambda p: jnp.tanh(X @ p))
START = jnp.array([0.5, -0.5])


def kfac(learning_rate=None, **settings):
    return so.kfac(learning_rate, example=F, **settings)


def ekfac(learning_rate=None, **settings):
    return so.ekfac(learning_rate, example=F, **settings)


def quadratic_model(**settings):
    return so.scale_by_quadratic_model(optax.scale_by_adam(), **settings)


METHODS = {
    method.__name__: method
    for method in (
        so.cubic_newton, so.dogleg, ekfac, so.hessian_free, so.hybrid_newton, kfac,
        so.layerwise_gauss_newton, so.levenberg_marquardt, so.natural_gradient, so.newton_cg,
        quadratic_model, so.sr1, so.trust_region_newton,
    )
}  # fmt: skip
OF_A_RATE = {"kfac": kfac, "ekfac": ekfac, "natural_gradient": so.natural_gradient}


def first_scale(tx) -> float:
    return float(so.diagnostics(tx.init(START))["scale"])


def update_of(tx):
    """A function of gradient and state, and abstract arguments of it."""

    def update(grad, state):
        return tx.update(grad, state, START, value=F(START), value_fn=F)

    return update, (START, jax.eval_shape(tx.init, START))


# HOW FAR


@pytest.mark.quick(5)
@pytest.mark.parametrize("name", METHODS)
def test_a_number_is_where_the_methods_own_policy_starts(name):
    for number in (3.0, jnp.float32(3.0), np.float32(3.0)):
        assert first_scale(METHODS[name](trust=number)) == 3.0


@pytest.mark.parametrize("name", OF_A_RATE)
def test_with_a_learning_rate_a_number_or_a_schedule_is_a_fixed_damping(name):
    for given in (3.0, lambda count: 3.0 + count, so.trust.fixed(3.0)):
        assert first_scale(OF_A_RATE[name](0.1, trust=given)) == 3.0


@pytest.mark.parametrize(
    ("method", "number", "policy"),
    [
        (kfac, 0.1, so.trust.damping(0.1)),
        (so.hessian_free, 0.1, so.trust.damping(0.1, halvings=10)),
        (so.levenberg_marquardt, jnp.inf, so.trust.radius()),
        (so.natural_gradient, None, so.trust.line_search()),
        (quadratic_model, 0.1, so.trust.damping(0.1, lazy=True)),
    ],
)
def test_the_methods_own_policy_written_out_is_the_same_program(method, number, policy):
    def program(trust):
        update, given = update_of(method(trust=trust))
        return re.sub(r"0x[0-9a-f]+", "", str(jax.make_jaxpr(update)(*given)))

    assert program(number) == program(policy)


SEARCHING = so.trust.damping(0.1, halvings=3)


@pytest.mark.parametrize(
    ("method", "policy"),
    [
        (so.levenberg_marquardt, so.trust.fixed(0.1)),
        (so.levenberg_marquardt, SEARCHING),
        (so.natural_gradient, so.trust.fixed(0.1)),
        (so.natural_gradient, SEARCHING),
        (kfac, so.trust.line_search(0.1)),
        (kfac, so.trust.damping(0.1, trial_every=5)),
        (so.hessian_free, so.trust.fixed(0.1)),
        (so.newton_cg, so.trust.fixed(0.1)),
        (so.cubic_newton, so.trust.fixed(0.1)),
    ],
)
def test_any_policy_that_fits_makes_a_step(method, policy):
    tx = method(trust=policy)
    update, given = update_of(tx)
    step, state = jax.eval_shape(update, *given)
    assert step.shape == START.shape
    assert jax.tree.structure(state) == jax.tree.structure(given[1])
    assert np.isclose(first_scale(tx), 0.1)


@pytest.mark.parametrize(
    ("make", "takes"),
    [
        (lambda: so.newton_cg(trust=so.trust.damping()), r"newton_cg .* trust.probed\(\) or"),
        (lambda: so.dogleg(trust=so.trust.cubic()), r"dogleg .* trust.probed\(\) or"),
        (lambda: kfac(trust=so.trust.radius()), r"kfac .* trust.damping\(\), trust.line_search"),
        (lambda: so.cubic_newton(trust=so.trust.radius()), r"cubic_newton .* trust.cubic\(\) or"),
        (
            lambda: so.levenberg_marquardt(trust=so.trust.cubic()),
            r"levenberg_marquardt takes a number, trust.radius\(\), .*trust.damping\(\), ",
        ),
        (
            lambda: kfac(0.1, trust=so.trust.damping()),
            r"kfac with a learning rate takes a number or trust.fixed\(\)",
        ),
        (
            lambda: so.natural_gradient(0.1, trust=so.trust.line_search()),
            r"natural_gradient with a learning rate takes a number or trust.fixed\(\)",
        ),
    ],
)
def test_a_policy_that_does_not_fit_gives_a_sentence(make, takes):
    with pytest.raises(ValueError, match=takes + r".* as trust, but got a policy whose"):
        make()


@pytest.mark.parametrize("given", [so.trust.radius, "radius"])
def test_a_policy_that_was_not_called_gives_a_sentence(given):
    with pytest.raises(TypeError, match=r"such as secondorder\.trust\.radius\(\), or a number"):
        so.newton_cg(trust=given)


@pytest.mark.parametrize("name", sorted(METHODS.keys() - {"natural_gradient"}))
def test_what_is_no_number_gives_a_sentence(name):
    with pytest.raises(TypeError, match="has no schedule"):
        METHODS[name](trust=lambda count: 0.1)
    with pytest.raises(TypeError, match="trust=None.* pass a (positive )?number"):
        METHODS[name](trust=None)


# Names and types


@pytest.mark.parametrize("name", so.methods.__all__)
def test_all_but_the_first_argument_is_given_by_name_and_has_a_type(name):
    for key, parameter in inspect.signature(getattr(so, name)).parameters.items():
        by_name = parameter.kind is inspect.Parameter.KEYWORD_ONLY
        assert by_name == (key not in ("learning_rate", "direction")), key
        assert parameter.annotation not in ("Any", inspect.Parameter.empty), key


def test_decay_of_weights_has_a_mask_beside_it():
    keys = [set(inspect.signature(getattr(so, name)).parameters) for name in so.methods.__all__]
    assert all(("weight_decay" in each) == ("weight_decay_mask" in each) for each in keys)
    assert sum("weight_decay_mask" in each for each in keys) == 8


DECAYING = {
    "adahessian": so.adahessian,
    "ekfac": ekfac,
    "kfac": kfac,
    "kl_shampoo": so.kl_shampoo,
    "kl_soap": so.kl_soap,
    "shampoo": so.shampoo,
    "soap": so.soap,
    "sophia": so.sophia,
}


@pytest.mark.parametrize("name", ["soap", "kfac"])
def test_masked_leaves_do_not_decay(name):
    p = {"w": START, "b": jnp.array(2.0)}
    f = so.compose(F.loss, lambda p: jnp.tanh(X @ p["w"] + p["b"]))
    settings = {"kfac": {"example": f}, "soap": {"skip_first_step": False}}[name]
    make = lambda **decay: getattr(so, name)(0.1, **settings, **decay)

    @jax.jit
    def updates():
        pair = (make(), make(weight_decay=0.5, weight_decay_mask={"w": True, "b": False}))
        return [tx.update(jax.grad(f)(p), tx.init(p), p, value_fn=f)[0] for tx in pair]

    plain, decayed = updates()
    np.testing.assert_allclose(decayed["w"] - plain["w"], -0.05 * p["w"], rtol=1e-4)
    np.testing.assert_allclose(decayed["b"], plain["b"], rtol=1e-6)


@pytest.mark.parametrize("name", DECAYING)
def test_every_method_that_decays_hands_its_mask_on(name):
    seen = []
    tx = DECAYING[name](0.1, weight_decay=0.5, weight_decay_mask=lambda p: seen.append(p) or False)
    update, given = update_of(tx)
    jax.eval_shape(update, *given)
    assert len(seen) == 1


@pytest.mark.quick(1)
@pytest.mark.parametrize("make", [so.soap, so.shampoo, so.kl_shampoo])
@pytest.mark.parametrize("shape", [(0, 2), (2, 0), (3, 0, 2), (0,)])
def test_a_leaf_without_entries_changes_no_other(make, shape):
    tx, w = make(0.1), jnp.arange(6.0).reshape(3, 2)
    steps = []
    for params in ({"w": w}, {"none": jnp.zeros(shape), "w": w}):
        updates, state = tx.update(params, tx.init(params), params)
        steps.append(tx.update(params, state, params)[0]["w"])
    np.testing.assert_array_equal(*steps)
