"""The key of a function: the same where it computes the same, another one where it may not."""

import functools
import types

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import secondorder as so
from secondorder.optimize import _identity
from secondorder.optimize._identity import NoKey, Reader

SCALE = 2.0
TABLE = {"rate": [1.0, 2.0]}


def key(x):
    return Reader().key(x)


def helper(p):
    return SCALE * p


class Model:
    """A callable with a setting of its own, and one of its class."""

    order = 2

    def __init__(self, rate):
        self.rate = rate

    def __call__(self, p):
        return self.rate * helper(p) ** self.order

    def residual(self, p):
        return self(p) - 1


def test_two_functions_of_one_code_and_closure_have_one_key():
    make = lambda k: lambda p: k * p
    assert key(make(2)) == key(make(2)) != key(make(3))
    assert key(make(0.0)) != key(make(-0.0)) and key(make(1)) != key(make(1.0))
    assert key(make("a")) != key(make(b"a")) and key(make((1, 2))) != key(make([1, 2]))


def test_defaults_partials_and_bound_objects_are_read():
    def with_default(p, k=1.0):
        return k * p

    other = types.FunctionType(with_default.__code__, globals(), "f", (2.0,))
    assert key(with_default) != key(other)
    partial = lambda k: functools.partial(with_default, k=k)
    assert key(partial(1.0)) == key(partial(1.0)) != key(partial(2.0))
    assert key(Model(1.0).residual) == key(Model(1.0).residual) != key(Model(2.0).residual)


@pytest.mark.parametrize("change", ["scale", "table", "method", "class value", "function"])
def test_what_a_function_reads_on_the_way_is_part_of_its_key(change, monkeypatch):
    function = lambda p: Model(1.0)(p) * TABLE["rate"][0]
    before, here = key(function), __name__
    if change == "scale":
        monkeypatch.setitem(globals(), "SCALE", 3.0)  # read by a helper of a method
    elif change == "table":
        monkeypatch.setitem(TABLE, "rate", [1.5, 2.0])
    elif change == "method":
        monkeypatch.setattr(Model, "__call__", lambda self, p: p)
    elif change == "class value":
        monkeypatch.setattr(Model, "order", 3)
    else:
        monkeypatch.setitem(globals(), "helper", lambda p: p)
    assert key(function) != before, here
    monkeypatch.undo()
    assert key(function) == before


@pytest.mark.parametrize("where", ["global", "closure", "function in it"])
def test_a_name_in_a_module_of_the_users_is_read_too(where, monkeypatch):
    module = types.ModuleType("a_module_of_a_user")
    module.inner = types.ModuleType("another_one")  # type: ignore[attr-defined]
    module.inner.rate = 1.0
    exec("def rate_of(p):\n    return inner.rate * p", vars(module))
    module.rate_of.__module__ = module.__name__
    monkeypatch.setitem(globals(), "module_of_a_test", module)
    function = {
        "global": eval("lambda p: module_of_a_test.inner.rate * p", globals()),
        "closure": lambda p: module.inner.rate * p,
        "function in it": lambda p: module.rate_of(p),
    }[where]
    before = key(function)
    assert key(function) == before
    module.inner.rate = 2.0
    assert key(function) != before


def test_a_module_within_an_object_has_no_key():
    holder = {"module": types.ModuleType("a_module_of_a_user")}
    with pytest.raises(NoKey):
        key(lambda p: holder["module"].rate * p)


def test_an_array_of_numpy_counts_by_its_values_and_one_of_jax_by_itself():
    x, y = np.arange(3.0), jnp.arange(3.0)
    of_numpy, of_jax = (lambda p: p * x), lambda p: p * y
    before = key(of_numpy), key(of_jax)
    assert (key(of_numpy), key(of_jax)) == before
    x[0] = 5.0
    assert key(of_numpy) != before[0]
    y = jnp.arange(3.0)
    assert key(of_jax) != before[1]


def test_the_key_of_a_dead_array_is_that_of_no_other_one():
    of = lambda y: key(lambda p: p * y)
    dead, y = of(jnp.arange(3.0)), jnp.arange(3.0)
    assert dead != of(y) == of(y) != of(jnp.arange(3.0))


def test_jitted_functions_and_rules_of_ones_own_have_keys():
    @jax.custom_jvp
    def own(p):
        return SCALE * p

    own.defjvp(lambda primals, tangents: (own(*primals), SCALE * tangents[0]))
    jitted = jax.jit(lambda p: SCALE * p)
    for fn in (own, jitted, jax.nn.relu, jnp.sin, jax.vmap(helper), so.compose(so.huber(), helper)):
        assert key(fn) == key(fn)


@pytest.mark.parametrize(
    "make",
    [so.levenberg_marquardt, so.bfgs, so.newton_cg, so.soap, lambda: optax.adam(1e-2)],
    ids=["levenberg_marquardt", "bfgs", "newton_cg", "soap", "adam"],
)
def test_an_optimizer_made_anew_has_the_key_of_the_first(make):
    if make is so.soap:
        make = lambda: so.soap(1e-2)
    assert key(make()) == key(make())


def test_settings_of_an_optimizer_are_part_of_its_key():
    assert key(optax.adam(1e-2)) != key(optax.adam(1e-3))
    assert key(so.levenberg_marquardt()) != key(so.levenberg_marquardt(acceleration=False))
    assert key(so.newton_cg(trust=0.5)) != key(so.newton_cg(trust=1.0))


def test_a_function_that_calls_itself_has_a_key():
    def power(p, n):
        return p if n == 0 else p * power(p, n - 1)

    assert key(power) == key(power)
    example = so.compose(so.squared_error(np.ones(3)), helper)
    assert key(so.kfac(example=example)) == key(so.kfac(example=example))


@pytest.mark.parametrize("case", ["generator", "tracer", "globals", "late", "large", "slots"])
def test_what_may_change_unseen_has_no_key(case):
    class Slots:
        __slots__ = ("rate",)

    if case == "late":

        def function(p):
            return later * p

        with pytest.raises(NoKey):
            key(function)
        later = 1.0
        assert key(function) == key(function)
        return
    if case == "tracer":
        seen = []

        def traced(y):
            with pytest.raises(NoKey):
                key(lambda p: p * y)
            seen.append(y)
            return y

        jax.jit(traced)(jnp.ones(2))
        assert seen
        return
    value = {
        "generator": np.random.default_rng(0),
        "large": np.zeros(_identity.LARGEST),
        "slots": Slots(),
        "globals": None,
    }[case]
    function = (lambda p: globals()["SCALE"] * p) if case == "globals" else lambda p: (p, value)
    with pytest.raises(NoKey):
        key(function)
