"""What is not at its default in the contests of networks and equations.

A kept run is used again where its own entry is unchanged: whoever turns one runs that method again,
on that problem, and nothing else.
"""

from collections.abc import Mapping
from typing import Any

_TRUNCATED = {"damping": 0.05, "max_cg_steps": 20, "part": 2}
_INVERSE = {"every": 5, "refresh": 5, "tolerance": 2e-3}

#: Settings other than the defaults, by problem and method; the same for all seeds. With part=2 the
#: curvature is of every second example of the batch.
SETTINGS: Mapping[tuple[str, str], Mapping[str, Any]] = {
    ("digits-autoencoder", "kfac"): {"refresh": 1},
    ("digits-autoencoder", "ekfac"): {"refresh": 1},
    ("digits-classifier", "kfac"): {"refresh": 1},
    ("digits-classifier", "ekfac"): {"refresh": 1},
    # With a better inverse CG may stop sooner.
    ("digits-autoencoder", "hessian-free-kfac"): {"refresh": 1, "tolerance": 2e-3},
    ("digits-classifier", "hessian-free-kfac"): {"refresh": 1, "tolerance": 2e-3},
    ("curves", "hessian-free-kfac"): {"tolerance": 2e-3},
    # Fewer samples and trials, and curvature of every second image, cost few steps here.
    ("curves", "kfac"): {"every": 5, "trials": 5, "part": 2},
    ("curves", "ekfac"): {"every": 5, "trials": 5, "part": 2},
    # Bases for the axes of 784 double the time of a step, and it leaves the plateau later.
    ("curves", "soap"): {"max_precond_dim": 500},
    # Batches of 64 windows are noisy: memories of a few steps, and a λ that is held.
    ("byte-transformer", "soap"): {"b1": 0.8, "b2": 0.98, "precondition_frequency": 4},
    ("byte-transformer", "kfac"): {"momentum": 0.7, "refresh": 1, "trials": None},
    # Points drawn anew at every step: momentum, whole steps, and λ by their gain ratio.
    ("poisson-5d", "natural-gradient"): {"damping": 1.0, "momentum": 0.8, "search": False},
    # A step of 20 products takes seconds: λ is not tuned, but adapts from here.
    ("byte-transformer-large", "hessian-free"): _TRUNCATED,
    ("byte-transformer-large", "hessian-free-kfac"): _TRUNCATED | _INVERSE,
}
