"""What is not at its default in the contests of networks and equations.

A kept run is used again where its own entry is unchanged: whoever turns one runs that method again,
on that problem, and nothing else.
"""

from collections.abc import Mapping
from typing import Any

_TRUNCATED = {"trust": 0.05, "max_cg_steps": 20, "part": 2}
_INVERSE = {"sample_every": 5, "refresh_every": 5, "tolerance": 2e-3}

#: Settings other than the defaults, by problem and method; the same for all seeds. With part=2 the
#: curvature is of every second example of the batch; trial_every is that of ``trust.damping`` with
#: the tuned λ, and None is ``trust.fixed``.
SETTINGS: Mapping[tuple[str, str], Mapping[str, Any]] = {
    ("digits-autoencoder", "kfac"): {"refresh_every": 1},
    ("digits-autoencoder", "ekfac"): {"refresh_every": 1},
    ("digits-classifier", "kfac"): {"refresh_every": 1},
    ("digits-classifier", "ekfac"): {"refresh_every": 1},
    # With a better inverse CG may stop sooner.
    ("digits-autoencoder", "hessian-free-kfac"): {"refresh_every": 1, "tolerance": 2e-3},
    ("digits-classifier", "hessian-free-kfac"): {"refresh_every": 1, "tolerance": 2e-3},
    ("curves", "hessian-free-kfac"): {"tolerance": 2e-3},
    # Fewer samples and trials, and curvature of every second image, cost few steps here.
    ("curves", "kfac"): {"sample_every": 5, "trial_every": 5, "part": 2},
    ("curves", "ekfac"): {"sample_every": 5, "trial_every": 5, "part": 2},
    # Fewer samples and trials, as on CURVES.
    ("fashion-mnist", "kfac"): {"sample_every": 5, "trial_every": 5},
    ("fashion-mnist", "ekfac"): {"sample_every": 5, "trial_every": 5},
    # Bases for the axes of 784 double the time of a step, and it leaves the plateau later.
    ("curves", "soap"): {"max_precond_dim": 500},
    # Batches of 64 windows are noisy: memories of a few steps, and a λ that is held.
    ("byte-transformer", "soap"): {"b1": 0.8, "b2": 0.98, "refresh_every": 4},
    ("byte-transformer", "kfac"): {"momentum": 0.7, "refresh_every": 1, "trial_every": None},
    # Points drawn anew at every step: momentum, whole steps, and λ by their gain ratio.
    ("poisson-5d", "natural-gradient"): {"trust.damping": 1.0, "mu": 0.8},
    # A step of 20 products takes seconds: λ is not tuned, but adapts from here.
    ("byte-transformer-large", "hessian-free"): _TRUNCATED,
    ("byte-transformer-large", "hessian-free-kfac"): _TRUNCATED | _INVERSE,
}
