"""secondorder: second-order optimization for JAX, one Optax step at a time."""

from secondorder import (
    curvature,
    log,
    losses,
    operators,
    solvers,
    spectrum,
    tree,
    trust,
)
from secondorder.citations import citation
from secondorder.curvature import exact, layer_table, running
from secondorder.interop import only_extra_args
from secondorder.linear_systems import LinearSolution, LinearStatus, solve
from secondorder.losses import (
    arctan,
    cauchy,
    huber,
    poisson,
    sigmoid_cross_entropy,
    soft_l1,
    softmax_cross_entropy,
    squared_error,
)
from secondorder.methods import (
    adahessian,
    bfgs,
    cubic_newton,
    dogleg,
    ekfac,
    gauss_newton,
    gradient_descent,
    hessian_free,
    hybrid_newton,
    kfac,
    kl_shampoo,
    kl_soap,
    layerwise_gauss_newton,
    lbfgs,
    levenberg_marquardt,
    natural_gradient,
    newton,
    newton_cg,
    scale_by_quadratic_model,
    shampoo,
    soap,
    sophia,
    sr1,
    ssbfgs,
    ssbroyden,
    trust_region_newton,
)
from secondorder.notices import AdviceWarning
from secondorder.objectives._chunked import chunked
from secondorder.objectives._objective import (
    Objective,
    compose,
    per_example,
    restrict,
    sum_of_squares,
)
from secondorder.objectives._with_curvature import with_curvature
from secondorder.operators import (
    Operator,
    dense,
    empirical_fisher,
    fisher,
    ggn,
    ggnvp,
    hessian,
    hvp,
    jacobian,
)
from secondorder.optimize._curve_fit import curve_fit
from secondorder.optimize._fit import Fit
from secondorder.optimize._least_squares import least_squares
from secondorder.optimize._minimize import minimize
from secondorder.optimize._multistart import Minima
from secondorder.optimize._profile import Profile
from secondorder.optimize._programs import RecompilationWarning
from secondorder.optimize._records import Evaluations, History, Status
from secondorder.optimize._solution import Solution
from secondorder.optimize._watch import Iterate
from secondorder.quadratic import Quadratic
from secondorder.spectrum import (
    condition_number,
    diagonal,
    logdet,
    spectral_density,
    top_eigenpairs,
    trace,
)
from secondorder.state import CurvatureState, advice, diagnostics
from secondorder.transform import scale_by_curvature

__version__ = "0.1.0"

__all__ = [
    "__version__",
    # objectives
    "Objective",
    "chunked",
    "citation",
    "compose",
    "per_example",
    "restrict",
    "sum_of_squares",
    "with_curvature",
    # losses
    "arctan",
    "cauchy",
    "huber",
    "poisson",
    "sigmoid_cross_entropy",
    "soft_l1",
    "softmax_cross_entropy",
    "squared_error",
    # derivatives
    "ggnvp",
    "hvp",
    "jacobian",
    # operators
    "Operator",
    "Quadratic",
    "dense",
    "empirical_fisher",
    "fisher",
    "ggn",
    "hessian",
    # linear systems
    "LinearSolution",
    "LinearStatus",
    "solve",
    # instruments
    "condition_number",
    "diagonal",
    "logdet",
    "spectral_density",
    "top_eigenpairs",
    "trace",
    # methods
    "adahessian",
    "ekfac",
    "kfac",
    "kl_shampoo",
    "kl_soap",
    "shampoo",
    "soap",
    "sophia",
    "sr1",
    "ssbfgs",
    "ssbroyden",
    "lbfgs",
    "dogleg",
    "bfgs",
    "cubic_newton",
    "gauss_newton",
    "gradient_descent",
    "hessian_free",
    "hybrid_newton",
    "layerwise_gauss_newton",
    "levenberg_marquardt",
    "natural_gradient",
    "newton",
    "newton_cg",
    "trust_region_newton",
    # composing
    "AdviceWarning",
    "CurvatureState",
    "advice",
    "diagnostics",
    "exact",
    "layer_table",
    "only_extra_args",
    "running",
    "scale_by_curvature",
    "scale_by_quadratic_model",
    # solving
    "Evaluations",
    "Fit",
    "History",
    "Iterate",
    "Minima",
    "Profile",
    "Solution",
    "RecompilationWarning",
    "Status",
    "curve_fit",
    "least_squares",
    "minimize",
    # rooms
    "curvature",
    "log",
    "losses",
    "operators",
    "solvers",
    "spectrum",
    "tree",
    "trust",
]
