"""Every setting of every method and part × bad values: a sentence where the thing is made."""

import inspect
import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import secondorder as so
from secondorder import settings

F = so.sum_of_squares(lambda p: p)
START = jnp.ones(2)

# What is needed to make a thing at all.
REQUIRED = {
    "kfac": {"example": F},
    "ekfac": {"example": F},
    "scale_by_quadratic_model": {"direction": optax.scale_by_adam()},
    "running": {
        "estimator": so.curvature.gradient(),
        "structure": so.curvature.diagonal(),
        "decay": 0.9,
    },
    "scale_by_curvature": {
        "curvature": so.exact(so.ggn),
        "solver": so.solvers.cg(),
        "trust": so.trust.damping(),
    },
    "exact": {"operator": so.ggn},
    "solvers.geodesic": {"solver": so.solvers.qr()},
    "solvers.momentum": {"solver": so.solvers.cg()},
    "solvers.block_diagonal": {"solver": so.solvers.cg()},
    "solvers.grafted": {"solver": so.solvers.cg(), "onto": None},
    "solvers.matrix_sign": {"solver": so.solvers.apply_inverse()},
    "solvers.optimal_scaling": {"solver": so.solvers.apply_inverse()},
    "solvers.nystrom": {"rank": 2},
    "curvature.layerwise": {"example": F},
    "curvature.preconditioned": {
        "base": so.exact(so.ggn),
        "approximation": so.curvature.identity(),
    },
    "curvature.proposed": {"direction": optax.scale_by_adam()},
}
REQUIRED |= {f"curvature.{name}": REQUIRED[name] for name in ("running", "exact")}

PARTS = {
    "": (so, [*so.methods.__all__, "scale_by_curvature", "huber", "soft_l1", "cauchy", "arctan"]),
    "solvers.": (so.solvers, so.solvers.__all__),
    "trust.": (so.trust, so.trust.__all__),
    "curvature.": (so.curvature, so.curvature.__all__),
}
# Records of functions, and functions of an objective or of a trial.
NO_FACTORIES = {"layer_table", "nielsen", "martens"}
FACTORIES = {
    prefix + name: getattr(room, name)
    for prefix, (room, names) in PARTS.items()
    for name in names
    if inspect.isfunction(getattr(room, name)) and name not in NO_FACTORIES
}
BAD = {
    "a string": "0.1",
    "None": None,
    "negative": -1,
    "a negative fraction": -0.5,
    "NaN": float("nan"),
    "infinity": float("inf"),
    "minus infinity": -jnp.inf,
    "a list": [0.1, 0.2],
    "an array": jnp.ones(2),
    "an array of one": np.ones(1, int),
    "a bool": True,
    "a part of one": 2.5,
    "a complex number": 1j,
    "an object": object(),
    "a dict": {"a": 1.0},
    "an array that is NaN": jnp.float32(jnp.nan),
    "a negative array": np.int32(-3),
}
NEGATIVE = {"negative", "a negative array"}
# What is no mistake, or not one that can be seen.
ALLOWED = {
    "seed": NEGATIVE,
    "maximum": {"infinity"},
    "weight_decay_mask": {"a bool"},
    "scale": {"infinity"},
    "graft": {"None"},
    "onto": {"None"},
    "block_size": {"None"},
}
INFINITE_TRUST = {
    "newton_cg",
    "trust_region_newton",
    "sr1",
    "dogleg",
    "hybrid_newton",
    "trust.probed",
    "trust.radius",
}
INFINITE_TRUST |= {"levenberg_marquardt"}


def make(name, **changed):
    return FACTORIES[name](**{**REQUIRED.get(name, {}), **changed})


def starts(name: str, setting: str) -> bool:
    """Whether it is the trust of a method, which may be a number."""
    return setting == "trust" and name != "scale_by_curvature"


def allowed(name: str, setting: str) -> set[str]:
    default = inspect.signature(FACTORIES[name]).parameters[setting].default
    found = set(ALLOWED.get(setting, ()))
    if default is None:
        found.add("None")
    known = settings.KINDS[setting]
    if known is settings.FLAG:
        found.add("a bool")
    elif not known.fits("0.1") and known.fits(2.5) and known.within(2.5) or starts(name, setting):
        found.add("a part of one")
    if setting in ("trust", "initial") and name in INFINITE_TRUST:
        found.add("infinity")
    return found


@pytest.mark.parametrize("name", FACTORIES)
def test_a_bad_setting_gets_a_sentence_that_names_it(name):
    make(name)
    wrong = []
    for setting in inspect.signature(FACTORIES[name]).parameters:
        if setting == "options":
            continue
        for label, value in BAD.items():
            try:
                make(name, **{setting: value})
                told = ""
            except (TypeError, ValueError) as error:
                told = str(error)
            wanted = "" if label in allowed(name, setting) else f"got {setting}=.*pass .*[.]$"
            if bool(wanted) != bool(told) or not re.search(wanted, told, re.DOTALL):
                wrong.append((setting, label, told))
    assert wrong == []


def test_a_schedule_and_a_traced_number_are_welcome():
    schedule = optax.linear_schedule(0.1, 0.0, 10)
    for name, setting in (
        ("soap", "learning_rate"),
        ("newton", "damping"),
        ("trust.fixed", "scale"),
    ):
        make(name, **{setting: schedule})
    make("kfac", learning_rate=schedule, trust=schedule)

    def with_traced_numbers(number, count):
        for name in FACTORIES:
            for setting in inspect.signature(FACTORIES[name]).parameters:
                kind = settings.KINDS[setting]
                if (name, setting) == ("solvers.nystrom", "refresh_every"):
                    continue  # more than 1 keeps a sketch, so that it decides shapes
                if kind is settings.ANYTHING and not starts(name, setting):
                    continue
                if not kind.static and kind.fits(0.1):
                    make(name, **{setting: number})
                elif not kind.static and kind.fits(1):
                    make(name, **{setting: count})
        return number

    jax.eval_shape(jax.vmap(with_traced_numbers), jnp.ones(3), jnp.ones(3, int))


def test_a_traced_number_that_decides_shapes_gets_a_sentence():
    with pytest.raises(TypeError, match="traced number as max_precond_dim.* static_args"):
        jax.eval_shape(lambda n: make("soap", max_precond_dim=n) and n, 3)


@pytest.mark.parametrize("number", [3, np.int64(3), np.int32(3), np.array(3), jnp.asarray(3)])
def test_a_count_is_any_integer(number):
    assert so.lbfgs(memory=number).init(START) is not None
    make("solvers.cg", max_steps=number)
    make("curvature.running", refresh_every=number)


def test_a_known_number_is_checked_inside_of_jit_as_outside(x64):
    numbers = {sign: jnp.asarray(sign * 0.5) for sign in (1, -1)}
    make = lambda sign: jax.jit(lambda: so.newton(damping=numbers[sign]).init(START))()
    make(1)
    with pytest.raises(ValueError, match=r"newton got damping=.*-0.5.*; pass a finite number"):
        make(-1)


def test_a_keyword_that_is_unknown_is_reported_by_python():
    with pytest.raises(TypeError, match=r"soap\(\) got an unexpected keyword argument 'mask'"):
        so.soap(0.1, mask=True)


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: so.soap(-0.1), "soap got learning_rate=-0.1; pass a finite number that is not "),
        (lambda: so.newton_cg(solver="cg"), "newton_cg got solver='cg'; pass a solver, such as"),
        (lambda: so.newton_cg(solver=so.solvers.gltr), "solver=gltr; pass a solver, such as"),
        (lambda: so.newton_cg(trust=-1.0), r"newton_cg got trust=-1.0, .*trust.radius got initial"),
        (lambda: so.newton_cg(trust="wide"), r"trust=wide; pass a policy, such as secondorder.tr"),
        (lambda: so.kfac(example=F, estimator=3), "kfac got estimator=3; pass an estimator"),
        (lambda: so.operators.Axes(-3), "operators.Axes got block_size=-3; pass a positive "),
        (lambda: so.solvers.cg(jnp.ones(2)), r"max_steps=an array of the shape \(2,\); pass"),
        (lambda: so.trust.damping(0.0), "trust.damping got initial=0.0; pass a positive number"),
    ],
)
def test_a_sentence_names_the_argument_its_value_and_what_to_pass(make, sentence):
    with pytest.raises((TypeError, ValueError), match=sentence):
        make()


HESSIAN, KEY = so.hessian(lambda p: jnp.sum(p**4), START), jax.random.key(0)
CALLS = {
    "minimize": (
        lambda **given: so.minimize(lambda p: jnp.sum(p**2), START, **given),
        ("tol", "max_steps", "history", "callback", "has_aux"),
    ),
    "least_squares": (lambda **given: so.least_squares(lambda p: p, START, **given), ("loss",)),
    "curve_fit": (
        lambda **given: so.curve_fit(lambda p, x: p * x, START, START, START, **given),
        ("absolute_sigma", "callback", "loss", "nan_policy"),
    ),
    "fisher": (lambda **given: so.fisher(F, START, KEY, **given), ("samples",)),
    "jacobian": (lambda **given: so.jacobian(lambda p: p, START, **given), ("chunk_size",)),
    "trace": (lambda **given: so.trace(HESSIAN, START, KEY, **given), ("samples",)),
    "logdet": (
        lambda **given: so.logdet(HESSIAN, START, KEY, **given),
        ("damping", "samples", "steps"),
    ),
    "solve": (
        lambda **given: so.solve(HESSIAN, START, **given),
        ("damping", "tolerance", "max_steps"),
    ),
    "spectral_density": (
        lambda **given: so.spectral_density(HESSIAN, START, KEY, **given),
        ("samples", "steps", "points", "width"),
    ),
}
WITH_NONE = {"tol", "callback", "loss", "chunk_size", "width", "tolerance", "max_steps"}


@pytest.mark.parametrize("name", CALLS)
def test_a_bad_setting_of_a_solve_or_an_instrument_gets_a_sentence(name):
    call, names = CALLS[name]
    number = {"tol", "damping", "width", "tolerance"}
    for setting in names:
        for label, value in BAD.items():
            flag = setting in ("has_aux", "absolute_sigma") and label == "a bool"
            whole = setting in number and label == "a part of one"
            if flag or whole or (label == "None" and setting in WITH_NONE):
                continue
            with pytest.raises((TypeError, ValueError), match=f"got {setting}=.*pass "):
                call(**{setting: value})
