"""What a user's functions and parameters may not be, at every entry, ends in a sentence."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import secondorder as so

P = jnp.ones(2)
KEY = jax.random.key(0)


def update(optimizer):
    return lambda fn: optimizer.update(P, optimizer.init(P), P, value_fn=fn)


SCALAR = {
    "minimize": lambda fn: so.minimize(fn, P),
    "minimize by Optax": lambda fn: so.minimize(fn, P, optax.adam(0.1)),
    "hessian": lambda fn: so.hessian(fn, P),
    "hvp": lambda fn: so.hvp(fn, P, P),
    "newton": update(so.newton()),
    "trust_region_newton": update(so.trust_region_newton()),
    "cubic_newton": update(so.cubic_newton()),
    "newton_cg": update(so.newton_cg()),
    "lbfgs": update(so.lbfgs()),
    "sr1": update(so.sr1()),
    "gradient_descent": update(so.gradient_descent()),
    "adahessian": update(so.adahessian(0.1)),
    "a loss in minimize": lambda fn: so.minimize(so.compose(fn, lambda p: p), P),
    "a loss in ggn": lambda fn: so.ggn(so.compose(fn, lambda p: p), P).mv(P),
    "a loss in least_squares": lambda fn: so.least_squares(lambda p: p, P, loss=fn),
    "a chunk": lambda fn: so.minimize(so.chunked(lambda c: fn, P, 1), P),
}


@pytest.mark.quick(12)
@pytest.mark.parametrize("entry", SCALAR)
@pytest.mark.parametrize(
    ("returned", "error", "message"),
    [
        (lambda p: (jnp.sum(p), {"aux": p}), ValueError, r"a pair \(float32\[\], .*has_aux=True"),
        (lambda p: jnp.sum(p)[None], ValueError, r"float32\[1\]. Reduce it"),
        (lambda p: p, ValueError, r"float32\[2\]. Reduce it"),
        (lambda p: {"loss": jnp.sum(p)}, ValueError, r"\{'loss': float32\[\]\}"),
        (lambda p: None, ValueError, "None. Is a `return` missing"),
        (lambda p: "low", ValueError, "'low'"),
        (lambda p: jnp.sum(p.astype(int)), TypeError, r"int32\[\], which has no derivative"),
        (lambda p: p[0] > 0, TypeError, r"bool\[\], which has no derivative"),
        (lambda p: True, TypeError, "which has no derivative"),
        (lambda p: 1j * jnp.sum(p), TypeError, r"complex64\[\], which is complex"),
        (lambda p: np.sum(np.sin(p)), TypeError, "calls NumPy: use jax.numpy"),
    ],
)
def test_an_objective_without_one_real_value_gets_a_sentence(entry, returned, error, message):
    with pytest.raises(error, match=message):
        SCALAR[entry](returned)


@pytest.mark.quick(1)
@pytest.mark.parametrize("constant", [3.0, 3, np.float64(3), np.float32(3), np.int32(3)])
def test_a_constant_objective_is_at_its_minimum(constant):
    solution = so.minimize(lambda p: constant, P)
    assert solution.success and solution.value == 3
    assert not np.any(so.hvp(lambda p: constant, P, P))
    assert np.all(np.isfinite(update(so.newton_cg())(lambda p: constant)[0]))


ARRAYS = {
    "least_squares": lambda fn: so.least_squares(fn, P),
    "curve_fit": lambda fn: so.curve_fit(lambda p, x: fn(p), P, P, P),
    "jacobian": lambda fn: so.jacobian(fn, P),
    "ggn": lambda fn: so.ggn(so.sum_of_squares(fn), P),
    "ggnvp": lambda fn: so.ggnvp(so.sum_of_squares(fn), P, P),
    "fisher": lambda fn: so.fisher(so.compose(so.squared_error(P), fn), P),
    "gauss_newton": lambda fn: update(so.gauss_newton())(so.sum_of_squares(fn)),
    "levenberg_marquardt": lambda fn: update(so.levenberg_marquardt())(so.sum_of_squares(fn)),
    "hessian_free": lambda fn: update(so.hessian_free())(so.sum_of_squares(fn)),
}


@pytest.mark.parametrize("entry", ARRAYS)
@pytest.mark.parametrize(
    ("returned", "error", "message"),
    [
        (lambda p: None, ValueError, "Is a `return` missing"),
        (lambda p: {"a": p, "b": "text"}, TypeError, r"'text' at outputs\['b'\]"),
        (lambda p: {"a": p, "b": p > 0}, TypeError, r"bool\[2\] at outputs\['b'\], which has no"),
        (lambda p: jnp.round(p).astype(int), TypeError, r"int32\[2\], which has no derivative"),
        (lambda p: np.sin(p), TypeError, "calls NumPy: use jax.numpy"),
    ],
)
def test_a_model_without_real_arrays_gets_a_sentence(entry, returned, error, message):
    with pytest.raises(error, match=message):
        ARRAYS[entry](returned)


def test_a_custom_loss_may_take_labels_from_the_model():
    labels = jnp.array([0, 1])
    loss = lambda out: jnp.sum((out[0] - out[1]) ** 2)
    solution = so.minimize(so.compose(loss, lambda p: (p, labels)), P)
    np.testing.assert_allclose(solution.params, [0, 1], atol=1e-3)


PARAMETERS = {
    "minimize": lambda p: so.minimize(value_of, p),
    "least_squares": lambda p: so.least_squares(lambda q: value_of(q)[None], p),
    "curve_fit": lambda p: so.curve_fit(lambda q, x: value_of(q) * x, P, P, p),
    "hessian": lambda p: so.hessian(value_of, p),
    "ggn": lambda p: so.ggn(so.sum_of_squares(value_of), p),
    "jacobian": lambda p: so.jacobian(value_of, p),
    "layer_table": lambda p: so.layer_table(so.sum_of_squares(value_of), p),
    "an optimizer": lambda p: so.kfac(example=so.sum_of_squares(value_of)).init(p),
    "trace": lambda p: so.trace(so.operators.Identity(), p, KEY),
    "diagonal": lambda p: so.diagonal(so.operators.Identity(), p, KEY),
    "logdet": lambda p: so.logdet(so.operators.Identity(), p, KEY),
}


def value_of(p):
    return jnp.sum(p["w"] ** 2)


@pytest.mark.parametrize("entry", PARAMETERS)
@pytest.mark.parametrize(
    ("leaf", "message"),
    [
        (jnp.tanh, "tanh.*which is no array. Pass the floating-point arrays alone"),
        (jax.nn.relu, "custom_jvp.*which is no array"),
        ("name", "is 'name', which is no array"),
        (3, "dtype int32, which has no derivative. Write 1.0 for 1"),
        (True, "dtype bool"),
        (np.arange(2), "dtype int"),
        (np.array(["a"]), "dtype <U1"),
        (object(), "object object"),
        (jax.random.key(0), "dtype key<fry>"),
        (1j, "is complex"),
    ],
)
def test_a_leaf_that_is_no_real_array_is_named(entry, leaf, message):
    place = r"(params|like)\['held'\] "
    with pytest.raises(TypeError, match=place + "(is|has) .*" + message.removeprefix("is ")):
        PARAMETERS[entry]({"w": jnp.ones(2), "held": leaf})


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (so.newton, r"Call it: newton\(\)"),
        (0.1, "Pass an Optax transformation"),
    ],
)
def test_what_is_no_optimizer_gets_a_sentence(given, message):
    calls = [
        lambda: so.minimize(jnp.sum, P, given),
        lambda: so.least_squares(lambda p: p, P, given),
        lambda: so.curve_fit(lambda p, x: p * x, P, P, P, given),
    ]
    for call in calls:
        with pytest.raises(TypeError, match=message):
            call()


def test_a_model_and_observations_of_another_library_get_a_sentence():
    with pytest.raises(TypeError, match=r"model has the arguments \(x, a, b\).*lambda p, x: f"):
        so.curve_fit(lambda x, a, b: a * x + b, P, P, jnp.ones(2))
    with pytest.raises(TypeError, match="rows of several lengths"):
        so.curve_fit(lambda p, x: p, P, [[1.0, 2.0], [3.0]], P)
    with pytest.raises(ValueError, match=r"predictions shaped like y, \[\(2,\), \(3,\)\]"):
        so.curve_fit(lambda p, x: p, P, [jnp.ones(2), jnp.ones(3)], P)
    with pytest.raises(TypeError, match="returns one array"):
        so.curve_fit(lambda p, x: (p, p), P, P, P)


# ---------------------------------------------------------------------------- auxiliary output


@pytest.mark.slow
def test_auxiliary_output_is_that_of_the_solution():
    value_fn = lambda p: (jnp.sum((p - 3) ** 2), {"double": 2 * p})
    solution = so.minimize(value_fn, P, has_aux=True)
    assert solution.success
    np.testing.assert_array_equal(solution.aux["double"], 2 * solution.params)
    residual = lambda p: (p - 3, 2 * p)
    fitted = jax.jit(lambda p: so.least_squares(residual, p, has_aux=True))(P)
    np.testing.assert_allclose(fitted.aux, 6, rtol=1e-5)
    assert so.minimize(lambda p: jnp.sum(p**2), P).aux is None


def test_has_aux_refuses_what_returns_no_pair():
    with pytest.raises(ValueError, match=r"minimize got has_aux=True.*returned float32\[\]"):
        so.minimize(lambda p: jnp.sum(p**2), P, has_aux=True)
    with pytest.raises(ValueError, match="least_squares got has_aux=True"):
        so.least_squares(lambda p: p, P, has_aux=True)
    with pytest.raises(TypeError, match="Pass a plain function"):
        so.minimize(so.sum_of_squares(lambda p: p), P, has_aux=True)


# A gap of optax.partition, to the models of four libraries. JAX takes one for an empty array.

WHOLE = {"b": jnp.zeros(1), "w": jnp.ones((2, 1))}
INPUTS = jnp.ones((3, 2))
DENSE = {
    "its gap is no operand": lambda p: INPUTS @ p["w"] + p["b"],
    "as Linen, a gap broadcasts": lambda p: INPUTS @ p["w"] + jnp.asarray(p["b"]),
    "as Linen, a gap has no shape": lambda p: INPUTS @ jnp.asarray(p["w"]) + p["b"],
    "as NNX": lambda p: INPUTS @ p["w"][...] + p["b"][...],
    "as Equinox": lambda p: sum(jax.tree.map(lambda _, x: x.sum(), WHOLE, p).values()) * INPUTS,
    "restricted to too few": lambda p: INPUTS @ p["w"] + p["b"],
}


def update_of_a_part(value_fn, example, trained):
    labels = {name: "train" if name == trained else "hold" for name in WHOLE}
    method = so.newton_cg() if example is None else so.kfac(example=example)
    tx = optax.partition({"train": method, "hold": optax.set_to_zero()}, labels)
    step = lambda p: tx.update(p, tx.init(p), p, value_fn=value_fn)
    return jax.eval_shape(step, WHOLE)


@pytest.mark.parametrize("trained", WHOLE)
@pytest.mark.parametrize("case", DENSE)
def test_a_gap_gets_a_sentence_whatever_the_model_makes_of_it(case, trained):
    f = so.compose(so.squared_error(jnp.ones((3, 1))), DENSE[case])
    if case == "restricted to too few":
        f = so.restrict(f, {trained: WHOLE[trained]})
    named = "params has gaps here.*value_fn=secondorder.restrict.*example=secondorder.restrict"
    for example in (None, f):
        with pytest.raises(TypeError, match=named):
            update_of_a_part(f, example, trained)


@pytest.mark.parametrize("split", [True, False])
def test_an_error_of_a_restricted_function_keeps_its_words(split):
    def model(p):
        return INPUTS @ p["w"].T + p["b"]

    mean = lambda p: jnp.mean(model(p))
    f = so.compose(so.squared_error(jnp.ones((3, 1))), model) if split else mean
    with pytest.raises(TypeError, match="contracting dimensions"):
        update_of_a_part(so.restrict(f, WHOLE), None, "w")


def test_a_partition_in_a_solve_gets_a_sentence():
    f = so.compose(so.squared_error(jnp.ones((3, 1))), DENSE["its gap is no operand"])
    labels = {"b": "hold", "w": "train"}
    tx = optax.partition({"train": so.newton_cg(), "hold": optax.set_to_zero()}, labels)
    with pytest.raises(TypeError, match="minimize and least_squares take no partition"):
        so.minimize(f, WHOLE, tx)
