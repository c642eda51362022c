"""The solvers by name: this library's and its peers', each at its defaults.

A cost is what was evaluated. Of least squares it is in residuals: a Jacobian is n tangents, a
tangent or a cotangent counts as one more residual, and a trial of ours takes a tangent along the
step, and a second derivative where the step is accelerated. Of minimisation it is in gradients, by
the prices of ``experiments.cost``.
"""

from dataclasses import dataclass
from functools import partial
from typing import Any

import jax.numpy as jnp
import optax

import secondorder as so
from experiments.benchmarks import scipy_solvers as scipy
from experiments.benchmarks.programs import Prepare, of_jaxopt, of_optax, of_optimistix, ours
from experiments.cost import GRADIENT, HESSIAN_PRODUCT, TRIAL, VALUE


@dataclass(frozen=True)
class Solver:
    """A solver and how it is drawn."""

    label: str
    prepare: Prepare
    colour: str
    dashes: Any = "solid"
    """Of peers; this library's are drawn solid."""

    @property
    def ours(self) -> bool:
        return self.dashes == "solid"


def _residuals(paid: so.Evaluations, n: int) -> Any:
    return 2 * paid.values + paid.gradients + n * paid.jacobians


def _accelerated(paid: so.Evaluations, n: int) -> Any:
    return _residuals(paid, n) + 3 * paid.values


def _hybrid(paid: so.Evaluations, n: int) -> Any:
    """As if every point had its Hessian, too: n products of two gradients."""
    return _accelerated(paid, n) + paid.jacobians * 4 * n


def _gradients(paid: so.Evaluations, n: int) -> Any:
    del n
    return TRIAL * paid.values + GRADIENT * paid.gradients + HESSIAN_PRODUCT * paid.products


def _gradients_alone(paid: so.Evaluations, n: int) -> Any:
    """Of a quasi-Newton method: products with its memory evaluate nothing."""
    del n
    return TRIAL * paid.values + GRADIENT * paid.gradients


def _half_square(residual):
    return lambda params: jnp.sum(residual(params) ** 2) / 2


_fit = partial(ours, so.least_squares, cost=_residuals)
_ours = partial(ours, so.minimize, cost=_gradients)
_secant = partial(ours, so.minimize, cost=_gradients_alone)
_by_jacobian = lambda steps, accepted, n: steps + n * accepted

# Colours are Okabe and Ito's; ours are drawn solid, peers dashed.
LEAST_SQUARES: dict[str, Solver] = {
    "levenberg-marquardt": Solver(
        "levenberg_marquardt",
        ours(so.least_squares, so.levenberg_marquardt, cost=_accelerated),
        "#000000",
    ),
    "hybrid-newton": Solver(
        "hybrid_newton", ours(so.least_squares, so.hybrid_newton, cost=_hybrid), "#E69F00"
    ),
    "dogleg": Solver("dogleg", _fit(so.dogleg), "#D55E00"),
    "optimistix-lm": Solver(
        "Optimistix LevenbergMarquardt",
        of_optimistix("LevenbergMarquardt", True, _by_jacobian),
        "#0072B2",
        (0, (5, 1.5)),
    ),
    "optimistix-dogleg": Solver(
        "Optimistix Dogleg", of_optimistix("Dogleg", True, _by_jacobian), "#56B4E9", (0, (5, 1.5))
    ),
    "optimistix-bfgs": Solver(
        "Optimistix BFGS",
        of_optimistix("BFGS", True, lambda steps, accepted, n: steps + accepted),
        "#999999",
        (0, (5, 1.5)),
    ),
    "optax-lbfgs": Solver(
        "Optax lbfgs", of_optax(optax.lbfgs, _half_square, 2), "#5D3A9B", (0, (1.5, 1))
    ),
    "scipy-lm": Solver("SciPy lm", scipy.least_squares("lm"), "#009E73", (0, (4, 1, 1, 1))),
    "scipy-trf": Solver("SciPy trf", scipy.least_squares("trf"), "#CC79A7", (0, (4, 1, 1, 1))),
}

#: Of the fits alone.
PEERS_IN_FITS: dict[str, Solver] = {
    "jaxopt-lm": Solver("JAXopt LevenbergMarquardt", of_jaxopt(), "#F0E442", (0, (1.5, 1))),
}

MINIMIZE: dict[str, Solver] = {
    "trust-region-newton": Solver("trust_region_newton", _ours(so.trust_region_newton), "#000000"),
    "newton": Solver("newton", _ours(so.newton), "#0072B2"),
    "cubic-newton": Solver("cubic_newton", _ours(so.cubic_newton), "#D55E00"),
    "newton-cg": Solver("newton_cg", _ours(so.newton_cg), "#CC79A7"),
    "bfgs": Solver("bfgs", _secant(so.bfgs), "#009E73"),
    "lbfgs": Solver("lbfgs", _secant(so.lbfgs), "#56B4E9"),
    "sr1": Solver("sr1", _secant(so.sr1), "#E69F00"),
    "optimistix-bfgs": Solver(
        "Optimistix BFGS",
        of_optimistix(
            "BFGS", False, lambda steps, accepted, n: VALUE * steps + (GRADIENT - VALUE) * accepted
        ),
        "#999999",
        (0, (5, 1.5)),
    ),
    "optax-lbfgs": Solver(
        "Optax lbfgs", of_optax(optax.lbfgs, lambda f: f, GRADIENT), "#56B4E9", (0, (1.5, 1))
    ),
    "scipy-trust-exact": Solver(
        "SciPy trust-exact", scipy.minimize("trust-exact"), "#000000", (0, (4, 1, 1, 1))
    ),
    "scipy-bfgs": Solver("SciPy BFGS", scipy.minimize("BFGS"), "#009E73", (0, (4, 1, 1, 1))),
}
