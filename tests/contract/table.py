"""The table of the contract: every method a row. A new method is one more row of ``METHODS``."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import optax
import pytest
from cases import with_slow
from contract.problems import example_of

import secondorder as so
from secondorder.solvers import Stop


class Method(NamedTuple):
    """A row of the table.

    Attributes:
      factory: the method; called with ``options``.
      options: its arguments, as written here. Injected as hyperparameters they change nothing.
      live: those among them that may be schedules, and that are read anew at every step.
      parabola, rosenbrock, logistic: within how many steps it solves them; 0 where the method
        makes no such claim.
      flags: how it reports indefinite curvature; empty where its curvature cannot be indefinite.
      closed_loop: whether it evaluates its step, and rejects one that does not descend.
      plain: whether a plain function serves as ``value_fn``, without the split in loss and model.
      matrix_free: whether it runs on explicitly sharded parameters.
      by_leaf: whether what it keeps or draws belongs to single leaves, so that the same numbers in
        another tree are another step.
      opening: how many first updates are no steps.
      gradients_alone: whether ``value_fn`` may be left out.
      dtypes: the parameters' dtypes that it supports.
    """

    factory: Callable[..., optax.GradientTransformationExtraArgs]
    options: Mapping[str, Any] = {}
    live: tuple[str, ...] = ()
    parabola: int = 0
    rosenbrock: int = 0
    logistic: int = 0
    flags: frozenset = frozenset()
    closed_loop: bool = False
    plain: bool = False
    matrix_free: bool = False
    by_leaf: bool = False
    gradients_alone: bool = False
    opening: int = 0
    dtypes: tuple[str, ...] = ("float16", "bfloat16", "float32", "float64")

    def make(self, **changed) -> optax.GradientTransformationExtraArgs:
        return self.factory(**{**self.options, **changed})


def damped_newton(damping):
    return so.scale_by_curvature(
        so.exact(so.hessian), so.solvers.direct(), so.trust.damping(damping)
    )


def levenberg_marquardt_cg(damping):
    return so.scale_by_curvature(so.exact(so.ggn), so.solvers.cg(), so.trust.damping(damping))


def levenberg_marquardt_of_a_given_damping(damping):
    return so.levenberg_marquardt(trust=so.trust.damping(damping))


def sampled_natural_gradient(damping):
    fisher = so.exact(so.fisher, seed=0, samples=4)
    return so.scale_by_curvature(fisher, so.solvers.cg(), so.trust.damping(damping))


def natural_gradient_by_gain_ratio(damping, mu):
    return so.natural_gradient(trust=so.trust.damping(damping), mu=mu)


def natural_gradient_by_products(trust):
    inner = so.solvers.cg(preconditioner=so.solvers.nystrom(2))
    return so.natural_gradient(trust=trust, solver=inner)


def hessian_free_preconditioned_by_a_sketch(trust):
    return so.hessian_free(trust=trust, preconditioner=so.solvers.nystrom(2, refresh_every=2))


def hessian_free_of_whole_steps(damping):
    return so.hessian_free(trust=so.trust.damping(damping), backtrack=0)


def hessian_free_preconditioned_by_layers(trust, example):
    return so.hessian_free(trust=trust, preconditioner=so.curvature.layerwise(example))


def layerwise_prox_linear(trust):
    solver = so.solvers.prox_linear(so.solvers.cg(10))
    return so.layerwise_gauss_newton(trust=trust, solver=solver, layer_of=so.operators.by_leaf)


def adam_scaled_by_the_quadratic_model(trust):
    return so.scale_by_quadratic_model(optax.scale_by_adam(), trust=trust)


def sophia_of_the_hessian(learning_rate, gamma):
    return so.sophia(learning_rate, gamma=gamma, estimator=so.curvature.hutchinson())


def shampoo_of_bases(learning_rate):
    return so.shampoo(learning_rate, eigen=True)


SHIFTED = frozenset({Stop.SHIFTED})
# A solver of a region uses negative curvature instead of repairing it, up to the boundary.
NEGATIVE = frozenset({Stop.NEGATIVE_CURVATURE, Stop.BOUNDARY})

METHODS = {
    "gradient_descent": Method(
        so.gradient_descent, parabola=14, logistic=50, plain=True
    ),
    "gradient_descent_of_a_fixed_rate": Method(
        so.gradient_descent, {"learning_rate": 0.5}, live=("learning_rate",),
        parabola=15, logistic=260, plain=True, matrix_free=True,
    ),
    "newton": Method(
        so.newton, {"damping": 1e-3}, live=("damping",),
        parabola=3, rosenbrock=26, logistic=6, flags=SHIFTED, plain=True,
    ),
    "newton_of_a_fixed_rate": Method(
        so.newton, {"learning_rate": 1.0, "damping": 1e-3}, live=("learning_rate", "damping"),
        parabola=3, rosenbrock=10, logistic=6, flags=SHIFTED, plain=True,
    ),
    "newton_with_adapted_damping": Method(
        damped_newton, {"damping": 1e-3},
        parabola=3, rosenbrock=42, logistic=6, flags=SHIFTED, closed_loop=True, plain=True,
    ),
    "newton_cg": Method(
        so.newton_cg, {"trust": 10.0},
        parabola=3, rosenbrock=50, logistic=6,
        flags=NEGATIVE, closed_loop=True, plain=True, matrix_free=True,
    ),
    "trust_region_newton": Method(
        so.trust_region_newton, {"trust": 10.0},
        parabola=2, rosenbrock=36, logistic=6, flags=NEGATIVE, closed_loop=True, plain=True,
    ),
    "cubic_newton": Method(
        so.cubic_newton, {"trust": 1.0},
        parabola=6, rosenbrock=33, logistic=8, flags=NEGATIVE, closed_loop=True, plain=True,
    ),
    "bfgs": Method(so.bfgs, parabola=6, rosenbrock=48, logistic=10, plain=True),
    "ssbfgs": Method(so.ssbfgs, parabola=6, rosenbrock=48, logistic=10, plain=True),
    "ssbroyden": Method(so.ssbroyden, parabola=6, rosenbrock=48, logistic=10, plain=True),
    "lbfgs": Method(so.lbfgs, parabola=6, rosenbrock=47, logistic=9, plain=True),
    "sr1": Method(
        so.sr1, {"trust": 10.0},
        parabola=6, rosenbrock=110, logistic=12, closed_loop=True, plain=True,
    ),
    "dogleg": Method(
        so.dogleg, {"trust": 10.0},
        parabola=2, rosenbrock=21, logistic=6, closed_loop=True,
    ),
    "gauss_newton": Method(so.gauss_newton, parabola=2, rosenbrock=16, logistic=6),
    "gauss_newton_of_a_fixed_rate": Method(
        so.gauss_newton, {"learning_rate": 1.0}, live=("learning_rate",),
        parabola=2, rosenbrock=3, logistic=6,
    ),
    "hybrid_newton": Method(
        so.hybrid_newton, {"trust": 10.0},
        parabola=2, rosenbrock=36, logistic=6, closed_loop=True,
    ),
    "levenberg_marquardt": Method(
        so.levenberg_marquardt, parabola=2, rosenbrock=7, logistic=6, closed_loop=True
    ),
    "levenberg_marquardt_of_a_given_damping": Method(
        levenberg_marquardt_of_a_given_damping, {"damping": 1e-3},
        parabola=3, rosenbrock=22, logistic=6, closed_loop=True,
    ),
    "levenberg_marquardt_by_cg": Method(
        levenberg_marquardt_cg, {"damping": 1e-3},
        parabola=3, rosenbrock=27, logistic=6, closed_loop=True, matrix_free=True,
    ),
    "hessian_free": Method(
        so.hessian_free, {"trust": 0.1},
        parabola=8, rosenbrock=32, logistic=15, matrix_free=True,
    ),
    "hessian_free_of_whole_steps": Method(
        hessian_free_of_whole_steps, {"damping": 0.1},
        parabola=8, rosenbrock=26, logistic=15, closed_loop=True, matrix_free=True,
    ),
    "hessian_free_preconditioned_by_layers": Method(
        hessian_free_preconditioned_by_layers, {"trust": 0.1, "example": example_of},
        parabola=8, rosenbrock=32, logistic=15, matrix_free=True, by_leaf=True,
    ),
    "hessian_free_preconditioned_by_a_sketch": Method(
        hessian_free_preconditioned_by_a_sketch, {"trust": 0.1},
        parabola=8, rosenbrock=30, logistic=15, by_leaf=True,
    ),
    "layerwise_gauss_newton": Method(
        so.layerwise_gauss_newton, {"trust": 1e-3},
        parabola=10, rosenbrock=40, logistic=20, matrix_free=True, by_leaf=True,
    ),
    "layerwise_prox_linear": Method(
        layerwise_prox_linear, {"trust": 1e-3},
        parabola=10, rosenbrock=40, logistic=20, matrix_free=True, by_leaf=True,
    ),
    "natural_gradient": Method(
        so.natural_gradient, {"trust": 1e-5},
        parabola=8, rosenbrock=40, logistic=20,
    ),
    "natural_gradient_by_gain_ratio": Method(
        natural_gradient_by_gain_ratio, {"damping": 1e-3, "mu": 0.5},
        parabola=20, rosenbrock=60, logistic=20, closed_loop=True,
    ),
    "natural_gradient_by_products": Method(
        natural_gradient_by_products, {"trust": 1e-5},
        parabola=8, rosenbrock=40, logistic=20, by_leaf=True,
    ),
    "natural_gradient_of_a_fixed_rate": Method(
        so.natural_gradient, {"learning_rate": 1.0, "trust": 1e-3, "mu": 0.0},
        live=("learning_rate", "trust"), parabola=5, rosenbrock=20, logistic=10,
    ),
    "adam_scaled_by_the_quadratic_model": Method(
        adam_scaled_by_the_quadratic_model, {"trust": 1e-2},
        parabola=20, logistic=25, closed_loop=True, matrix_free=True,
    ),
    "sampled_natural_gradient": Method(
        sampled_natural_gradient, {"damping": 1e-1},
        parabola=15, rosenbrock=70, logistic=16, closed_loop=True, matrix_free=True,
    ),
    "sophia": Method(
        so.sophia, {"learning_rate": 0.1}, live=("learning_rate",),
        logistic=330, matrix_free=True,
    ),
    "sophia_of_the_hessian": Method(
        sophia_of_the_hessian, {"learning_rate": 0.1, "gamma": 1.0}, live=("learning_rate",),
        logistic=250, plain=True, matrix_free=True, by_leaf=True,
    ),
    "adahessian": Method(
        so.adahessian, {"learning_rate": 0.5}, live=("learning_rate",),
        parabola=145, logistic=95, plain=True, matrix_free=True, by_leaf=True,
    ),
    "soap": Method(
        so.soap, {"learning_rate": 0.1}, live=("learning_rate",),
        logistic=250, plain=True, matrix_free=True, by_leaf=True, gradients_alone=True,
        opening=1,
    ),
    "kl_soap": Method(
        so.kl_soap, {"learning_rate": 0.1}, live=("learning_rate",),
        logistic=250, plain=True, matrix_free=True, by_leaf=True, gradients_alone=True,
        opening=1,
    ),
    "kl_shampoo": Method(
        so.kl_shampoo, {"learning_rate": 0.1}, live=("learning_rate",),
        logistic=250, plain=True, matrix_free=True, by_leaf=True, gradients_alone=True,
        opening=1,
    ),
    "shampoo": Method(
        so.shampoo, {"learning_rate": 0.05}, live=("learning_rate",),
        parabola=200, logistic=200,
        plain=True, matrix_free=True, by_leaf=True, gradients_alone=True,
    ),
    "shampoo_of_bases": Method(
        shampoo_of_bases, {"learning_rate": 0.05}, live=("learning_rate",),
        parabola=200, logistic=200,
        plain=True, matrix_free=True, by_leaf=True, gradients_alone=True,
    ),
    "kfac": Method(
        so.kfac, {"trust": 0.1, "example": example_of}, logistic=12,
        closed_loop=True, matrix_free=True, by_leaf=True,
    ),
    "kfac_of_a_given_rate": Method(
        so.kfac, {"learning_rate": 0.1, "trust": 0.1, "refresh_every": 1, "example": example_of},
        live=("learning_rate", "trust"), logistic=220, matrix_free=True, by_leaf=True,
    ),
    "ekfac": Method(
        so.ekfac, {"trust": 0.1, "example": example_of}, logistic=12,
        closed_loop=True, matrix_free=True, by_leaf=True,
    ),
}  # fmt: skip


# For the rules that all rows keep by the same lines of code. What Optax's wrappers, devices and the
# libraries of modules and checkpoints do to a state depends on what kind it is of, and of what kind
# the step, but not on the formula inside. These are the kinds.
REPRESENTATIVES = (
    "newton",  # the Hessian and a dense solution of it, behind Optax's own line search
    "newton_cg",  # products alone, in a region
    "levenberg_marquardt",  # rows of a Jacobian, whose factors outlive a rejection
    "natural_gradient",  # steps that the combinator itself searches along
    "lbfgs",  # memory of gradient differences
    "sophia",  # samples, drawn by a key in the state; nothing evaluates the step
    "soap",  # statistics of gradients alone, leaf by leaf
    "kfac",  # statistics of layers, and a loop closed around them
)


def names_where(condition) -> list[str]:
    return [name for name, method in METHODS.items() if condition(method)]


def rows(condition=lambda method: True):
    """A test over the rows of the table for which the condition holds: of a rule on the formula."""
    return pytest.mark.parametrize("name", names_where(condition))


def rows_of_kinds(condition=lambda method: True):
    """The same, of a rule that one of a kind keeps for the others: the others' tests are slow."""
    names = with_slow(names_where(condition), lambda name: name in REPRESENTATIVES)
    return pytest.mark.parametrize(("name",), names)


representatives = pytest.mark.parametrize("name", REPRESENTATIVES)
