"""The named methods: each an answer to what, how, and how far."""

from secondorder.methods.adahessian import adahessian
from secondorder.methods.bfgs import bfgs
from secondorder.methods.cubic_newton import cubic_newton
from secondorder.methods.dogleg import dogleg
from secondorder.methods.ekfac import ekfac
from secondorder.methods.gauss_newton import gauss_newton
from secondorder.methods.gradient_descent import gradient_descent
from secondorder.methods.hessian_free import hessian_free
from secondorder.methods.hybrid_newton import hybrid_newton
from secondorder.methods.kfac import kfac
from secondorder.methods.layerwise_gauss_newton import layerwise_gauss_newton
from secondorder.methods.lbfgs import lbfgs
from secondorder.methods.levenberg_marquardt import levenberg_marquardt
from secondorder.methods.natural_gradient import natural_gradient
from secondorder.methods.newton import newton
from secondorder.methods.newton_cg import newton_cg
from secondorder.methods.quadratic_model import scale_by_quadratic_model
from secondorder.methods.shampoo import shampoo
from secondorder.methods.soap import soap
from secondorder.methods.sophia import sophia
from secondorder.methods.sr1 import sr1
from secondorder.methods.trust_region_newton import trust_region_newton

__all__ = [
    "adahessian",
    "ekfac",
    "kfac",
    "scale_by_quadratic_model",
    "shampoo",
    "soap",
    "sophia",
    "sr1",
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
