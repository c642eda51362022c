"""The nonlinear regressions of NIST's Statistical Reference Datasets, from the published files.

https://www.itl.nist.gov/div898/strd/nls/nls_main.shtml, public domain. Each file of ``nist_data``
has two starts, the certified parameters with their standard deviations, and the data; its model is
in words there, and in ``MODELS`` here.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.testset.record import like

FOLDER = Path(__file__).parent / "nist_data"
BEGIN = 60  # lines before the data
PERIOD = 2 * np.pi / 12  # of a year, in months


@dataclass(frozen=True)
class Regression:
    """A model, data, two starts and the certified answer."""

    name: str
    model: Callable[[Any, Any], jax.Array]
    """``(parameters, x) ↦`` predictions."""
    x: np.ndarray
    y: np.ndarray
    starts: tuple[np.ndarray, np.ndarray]
    params: np.ndarray
    """The certified parameters, to eleven digits."""
    errors: np.ndarray
    """Their certified standard deviations."""
    squares: float
    """The certified Σr²."""

    def residual(self, params: jax.Array) -> jax.Array:
        """``model − y``, in the dtype of the parameters."""
        return self.model(params, like(params, self.x)) - like(params, self.y)

    def function(self, params: jax.Array) -> jax.Array:
        """Σr²."""
        return jnp.sum(self.residual(params) ** 2)


def _peaks(b, x):
    peak = lambda height, place, width: height * jnp.exp(-((x - place) ** 2) / width**2)
    return b[0] * jnp.exp(-b[1] * x) + peak(b[2], b[3], b[4]) + peak(b[5], b[6], b[7])


def _cubics(b, x):
    above = b[0] + b[1] * x + b[2] * x**2 + b[3] * x**3
    return above / (1 + b[4] * x + b[5] * x**2 + b[6] * x**3)


def _decays(b, x):
    return b[0] * jnp.exp(-b[1] * x) + b[2] * jnp.exp(-b[3] * x) + b[4] * jnp.exp(-b[5] * x)


def _saturation(b, x):
    return b[0] * (1 - jnp.exp(-b[1] * x))


def _ratio(b, x):
    return jnp.exp(-b[0] * x) / (b[1] + b[2] * x)


def _oscillations(b, x):
    wave = lambda rate, c, s: c * jnp.cos(rate * x) + s * jnp.sin(rate * x)
    return (
        b[0]
        + wave(PERIOD, b[1], b[2])
        + wave(2 * np.pi / b[3], b[4], b[5])
        + wave(2 * np.pi / b[6], b[7], b[8])
    )


MODELS: dict[str, Callable[[Any, Any], jax.Array]] = {
    "Bennett5": lambda b, x: b[0] * (b[1] + x) ** (-1 / b[2]),
    "BoxBOD": _saturation,
    "Chwirut1": _ratio,
    "Chwirut2": _ratio,
    "DanWood": lambda b, x: b[0] * x ** b[1],
    "ENSO": _oscillations,
    "Eckerle4": lambda b, x: b[0] / b[1] * jnp.exp(-0.5 * ((x - b[2]) / b[1]) ** 2),
    "Gauss1": _peaks,
    "Gauss2": _peaks,
    "Gauss3": _peaks,
    "Hahn1": _cubics,
    "Kirby2": lambda b, x: (b[0] + b[1] * x + b[2] * x**2) / (1 + b[3] * x + b[4] * x**2),
    "Lanczos1": _decays,
    "Lanczos2": _decays,
    "Lanczos3": _decays,
    "MGH09": lambda b, x: b[0] * (x**2 + x * b[1]) / (x**2 + x * b[2] + b[3]),
    "MGH10": lambda b, x: b[0] * jnp.exp(b[1] / (x + b[2])),
    "MGH17": lambda b, x: b[0] + b[1] * jnp.exp(-x * b[3]) + b[2] * jnp.exp(-x * b[4]),
    "Misra1a": _saturation,
    "Misra1b": lambda b, x: b[0] * (1 - (1 + b[1] * x / 2) ** -2),
    "Misra1c": lambda b, x: b[0] * (1 - (1 + 2 * b[1] * x) ** -0.5),
    "Misra1d": lambda b, x: b[0] * b[1] * x / (1 + b[1] * x),
    "Nelson": lambda b, x: b[0] - b[1] * x[0] * jnp.exp(-b[2] * x[1]),  # of log y
    "Rat42": lambda b, x: b[0] / (1 + jnp.exp(b[1] - b[2] * x)),
    "Rat43": lambda b, x: b[0] / (1 + jnp.exp(b[1] - b[2] * x)) ** (1 / b[3]),
    "Roszman1": lambda b, x: b[0] - b[1] * x - jnp.arctan(b[2] / (x - b[3])) / np.pi,
    "Thurber": _cubics,
}


def read(name: str) -> Regression:
    """A data set from its file."""
    lines = (FOLDER / f"{name}.dat").read_text().splitlines()
    rows = [line.split("=")[1].split() for line in lines[:BEGIN] if re.match(r"\s*b\d+ =", line)]
    first, second, params, errors = np.array(rows, float).T
    (squares,) = [line.split()[-1] for line in lines if line.startswith("Residual Sum of Squares")]
    y, *x = np.array([line.split() for line in lines[BEGIN:] if line.strip()], float).T
    return Regression(
        name=name,
        model=MODELS[name],
        x=x[0] if len(x) == 1 else np.array(x),
        y=np.log(y) if name == "Nelson" else y,
        starts=(first, second),
        params=params,
        errors=errors,
        squares=float(squares),
    )


NIST: dict[str, Regression] = {name.lower(): read(name) for name in MODELS}
