"""Named methods: each a choice of curvature, solver and trust policy."""

from secondorder.methods._adahessian import adahessian
from secondorder.methods._bfgs import bfgs
from secondorder.methods._cubic_newton import cubic_newton
from secondorder.methods._dogleg import dogleg
from secondorder.methods._ekfac import ekfac
from secondorder.methods._gauss_newton import gauss_newton
from secondorder.methods._gradient_descent import gradient_descent
from secondorder.methods._hessian_free import hessian_free
from secondorder.methods._hybrid_newton import hybrid_newton
from secondorder.methods._kfac import kfac
from secondorder.methods._kl_shampoo import kl_shampoo
from secondorder.methods._kl_soap import kl_soap
from secondorder.methods._layerwise_gauss_newton import layerwise_gauss_newton
from secondorder.methods._lbfgs import lbfgs
from secondorder.methods._levenberg_marquardt import levenberg_marquardt
from secondorder.methods._natural_gradient import natural_gradient
from secondorder.methods._newton import newton
from secondorder.methods._newton_cg import newton_cg
from secondorder.methods._scale_by_quadratic_model import scale_by_quadratic_model
from secondorder.methods._shampoo import shampoo
from secondorder.methods._soap import soap
from secondorder.methods._sophia import sophia
from secondorder.methods._sr1 import sr1
from secondorder.methods._ssbfgs import ssbfgs
from secondorder.methods._ssbroyden import ssbroyden
from secondorder.methods._trust_region_newton import trust_region_newton

__all__ = [
    "adahessian",
    "ekfac",
    "kfac",
    "kl_shampoo",
    "kl_soap",
    "scale_by_quadratic_model",
    "shampoo",
    "soap",
    "sophia",
    "sr1",
    "ssbfgs",
    "ssbroyden",
    "layerwise_gauss_newton",
    "lbfgs",
    "dogleg",
    "bfgs",
    "cubic_newton",
    "gauss_newton",
    "gradient_descent",
    "hessian_free",
    "hybrid_newton",
    "levenberg_marquardt",
    "natural_gradient",
    "newton",
    "newton_cg",
    "trust_region_newton",
]
