"""Pictures of fits: data, curve, band and residuals are the right ones."""

import importlib

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import pytest

import secondorder as so

X = np.linspace(0.0, 4.0, 30)[::-1]
Y = 2.0 * np.exp(-1.3 * X) + 0.1 * np.cos(37 * X)
START = {"a": 1.0, "rate": 1.0}


def curve(p, x):
    return p["a"] * jnp.exp(-p["rate"] * x)


@pytest.fixture(autouse=True)
def _figures_are_closed():
    yield
    plt.close("all")


def test_a_picture_shows_data_curve_band_and_residuals():
    sigma = 0.1 + 0.02 * X
    fit = so.curve_fit(curve, X, Y, START, sigma=sigma)
    top, bottom = fit.plot(level=0.9)
    (grid, drawn), (_, rest) = top.lines[-1].get_data(), bottom.lines[-1].get_data()
    np.testing.assert_allclose(drawn, curve(fit.params, grid), rtol=1e-5)
    np.testing.assert_allclose(rest, (Y - curve(fit.params, X)) / sigma, atol=1e-5)
    outline = next(c for c in top.collections if "band" in str(c.get_label())).get_paths()[0]
    low, high = fit.confidence_band(jnp.asarray(grid), 0.9)
    np.testing.assert_allclose(outline.vertices[:, 1].max(), high.max(), rtol=1e-5)
    np.testing.assert_allclose(outline.vertices[:, 1].min(), low.min(), rtol=1e-4, atol=1e-6)
    assert {"data", "fit", "90 % band"} <= {t.get_text() for t in top.get_legend().get_texts()}
    assert "σ" in bottom.get_ylabel()


@pytest.mark.slow
def test_a_model_of_the_datas_points_alone_is_drawn_there():
    fit = so.curve_fit(lambda p, x: curve(p, X), X, Y, START)
    _, axes = plt.subplots(2)
    top, bottom = fit.plot(axes)
    assert top is axes[0] and bottom is axes[1]
    grid, drawn = top.lines[-1].get_data()
    np.testing.assert_allclose(grid, np.sort(X))
    np.testing.assert_allclose(drawn, curve(fit.params, np.sort(X)), rtol=1e-5)


@pytest.mark.slow
def test_what_cannot_be_drawn_gets_a_sentence(monkeypatch):
    plane = so.curve_fit(lambda p, x: p["a"] * x[:, 0], np.stack([X, X], 1), Y, {"a": 1.0})
    with pytest.raises(ValueError, match="confidence_band"):
        plane.plot()
    fit = so.curve_fit(curve, X, Y, START)
    with pytest.raises(ValueError, match="from fit.params"):
        jax.tree.map(jnp.asarray, fit).plot()

    def absent(name):
        raise ImportError(name)

    monkeypatch.setattr(importlib, "import_module", absent)
    with pytest.raises(ImportError, match="pip install matplotlib"):
        fit.plot()
