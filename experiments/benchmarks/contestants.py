"""Who trains networks: this library's curvature methods and what they are measured against.

Each that has one is tuned over one hyperparameter, on a seed of its own, with the same number of
trials; all else is at its default, but for what `settings.py` says of a problem.
"""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import jax
import optax

import secondorder as so
from experiments import cost
from experiments.benchmarks.settings import SETTINGS
from experiments.optimizer import Look, Optimizer, Search
from experiments.optimizers import OPTIMIZERS
from experiments.problem import Problem

RATES = Search((1e-3, 1e-2, 1e-1))
SMALL_RATES = Search((1e-4, 1e-3, 1e-2))
DAMPINGS = Search((1e-3, 1e-1, 10.0))
# For embeddings and norms, where a method takes matrices alone: memories as short as its own.
REST: dict[str, Any] = {"learning_rate": 2e-2, "b2": 0.98}


def _of(method: Callable, **settings: Any) -> Callable:
    """One of Optax's, which takes no further keywords."""
    return lambda learning_rate: optax.with_extra_args_support(method(learning_rate, **settings))


def _first_order(name: str, label: str, build: Callable, search: Search, price=cost.gradient_only):
    return Optimizer(
        *(name, label, build, "first-order", price, Look("#8C8C8C", "solid", "o")),
        search={"learning_rate": search},
        diagnose=lambda state: {},
    )


def _curvature(name: str, label: str, build: Callable, price: cost.StepCost) -> Optimizer:
    look = Look("#0072B2", "solid", "o")
    return Optimizer(name, label, build, "dense", price, look, search={"damping": DAMPINGS})


def contestants(problem: Problem) -> dict[str, Optimizer]:
    """By name; AdamW first, which times are relative to."""

    def example(params) -> Any:
        batch = next(problem.stream(problem.load(), 0))
        whole = problem.init(jax.random.key(0), problem.load())  # fills the gaps of a masked tree
        del params
        return so.restrict(problem.objective(batch), whole)

    def layered(method: Callable, name: str, label: str) -> Optimizer:
        settings = own(name)
        part, trial_every = settings.pop("part", 1), settings.pop("trial_every", 1)

        def build(damping):
            tried = trial_every is not None
            held = so.trust.fixed(damping)
            policy = so.trust.damping(damping, trial_every=trial_every) if tried else held
            layers = method(trust=policy, example=example, **settings)
            return layers if _all_layers(problem) else on_matrices(layers)

        price = cost.layered(settings.get("sample_every", 1), trial_every, part)
        made = _curvature(name, label, build, price)
        return dataclasses.replace(made, curvature_part=part)

    def hessian_free(name: str, label: str, by_layers: bool) -> Optimizer:
        """Of all parameters; by K-FAC's inverse its λ is tuned, where that has no setting."""
        settings = own(name)
        part = settings.pop("part", 1)
        rates = ("sample_every", "refresh_every")
        of_layers = {key: settings.pop(key) for key in rates if key in settings}

        def build(**tuned):
            given = settings | ({"trust": tuned["damping"]} if tuned else {})
            if by_layers:
                inverse = so.curvature.layerwise(example, **of_layers)
                given |= {"preconditioner": inverse}
            return so.hessian_free(**given)

        every = of_layers.get("sample_every", 1) if by_layers else math.inf
        return dataclasses.replace(
            OPTIMIZERS["hessian-free"],
            name=name,
            label=label,
            build=build,
            step_cost=cost.truncated(part, every),
            search={"damping": DAMPINGS} if by_layers and "trust" not in settings else {},
            curvature_part=part,
        )

    def own(name: str) -> dict[str, Any]:
        return dict(SETTINGS.get((problem.name, name), {}))

    all_of_them = (
        _first_order("adamw", "AdamW", _of(optax.adamw), SMALL_RATES),
        _first_order("sgd", "SGD, momentum 0.9", _of(optax.sgd, momentum=0.9), RATES),
        _first_order("muon", "Muon", _of(optax.contrib.muon), RATES),
        OPTIMIZERS["lbfgs"],
        _first_order(
            "soap", "SOAP", lambda learning_rate: so.soap(learning_rate, **own("soap")), SMALL_RATES
        ),
        _first_order(
            "kl-soap", "KL-SOAP", lambda learning_rate: so.kl_soap(learning_rate), SMALL_RATES
        ),
        _first_order(
            "kl-shampoo", "KL-Shampoo", lambda learning_rate: so.kl_shampoo(learning_rate),
            SMALL_RATES,
        ),
        _first_order("shampoo", "Shampoo", lambda learning_rate: so.shampoo(learning_rate), RATES),
        _first_order(
            "sophia", "Sophia", lambda learning_rate: so.sophia(learning_rate), SMALL_RATES,
            cost.sampled(cost.GRADIENT, 10),
        ),
        _first_order(
            "adahessian", "AdaHessian", lambda learning_rate: so.adahessian(learning_rate), RATES,
            cost.sampled(cost.HESSIAN_PRODUCT),
        ),
        layered(so.kfac, "kfac", "K-FAC"),
        layered(so.ekfac, "ekfac", "EKFAC"),
        hessian_free("hessian-free", "Hessian-free", by_layers=False),
        hessian_free("hessian-free-kfac", "Hessian-free, by K-FAC", by_layers=True),
        _curvature(
            "layerwise-gauss-newton", "Layerwise Gauss-Newton",
            lambda damping: so.layerwise_gauss_newton(trust=damping), cost.by_layers,
        ),
    )  # fmt: skip
    everyone = all_of_them if _all_layers(problem) else (*all_of_them, ADAMW_IN_PARTS)
    racing = (optimizer for optimizer in everyone if not optimizer.left_out(problem))
    return {optimizer.name: optimizer for optimizer in racing}


def _all_layers(problem: Problem) -> bool:
    """Whether all leaves belong to the layers of a feed-forward network."""
    return isinstance(problem.init(jax.random.key(0), problem.load()), tuple)


def on_matrices(layers: optax.GradientTransformation) -> optax.GradientTransformationExtraArgs:
    """`layers` on the matrices, AdamW on embeddings and norms, as in a language model."""

    def labels(params):
        flat = jax.tree_util.tree_map_with_path
        rest = ("bytes", "places", "norm")
        name = lambda path: jax.tree_util.keystr(path[-1:])
        return flat(
            lambda path, x: "rest" if any(r in name(path) for r in rest) else "layers", params
        )

    both = optax.partition({"layers": layers, "rest": optax.adamw(**REST)}, labels)

    def update(updates, state, params=None, *, value_fn: Any = None, **extra):
        restricted = so.restrict(value_fn, params)
        return both.update(updates, state, params, value_fn=restricted, **extra)

    return optax.GradientTransformationExtraArgs(both.init, update)


ADAMW_IN_PARTS = _first_order(
    "adamw-in-parts",
    f"AdamW, rate {REST['learning_rate']:g} and b2 {REST['b2']:g} on embeddings and norms",
    lambda learning_rate: on_matrices(optax.adamw(learning_rate)),
    SMALL_RATES,
)
