"""A display of a running solve: a panel or lines, and the same solution as without."""

import io
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import secondorder as so
from secondorder.optimize import _progress, _watch


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def screen(capsys):
    """What the stream of errors got, as a function."""
    return lambda: capsys.readouterr().err


def quartic(p):
    return jnp.sum((p - 1.0) ** 4)


def rosenbrock(p):
    return jnp.stack([10 * (p[1] - p[0] ** 2), 1 - p[0]])


def test_a_solve_shows_its_first_point_and_its_end_and_is_the_same(screen):
    start = jnp.array([-1.2, 1.0])
    shown = so.least_squares(rosenbrock, start, progress=True)
    lines = screen().splitlines()
    plain = so.least_squares(rosenbrock, start)
    np.testing.assert_array_equal(shown.params, plain.params)
    assert lines[0].startswith("least_squares: steps 0 of at most 1000, value 12.1")
    assert f"steps {int(shown.steps)} of at most" in lines[-1] and "λ, Δ or σ" in lines[-1]
    assert lines[-1].endswith(f"end {shown.message}")
    assert not _watch._watchers


def test_lines_are_few(screen, monkeypatch):
    clock = iter(np.arange(0.0, 1e6, 0.5).tolist())  # half a second a step
    monkeypatch.setattr(_progress.time, "monotonic", lambda: next(clock))
    display = _progress.Display("minimize", 5000)
    point = so.Iterate(0, None, np.float32(2.0), np.float32(1.0), np.float32(np.inf))
    for steps in range(4000):
        display(point._replace(steps=steps))
    lines = screen().splitlines()
    assert 20 < len(lines) < 100
    assert lines[0] == (
        "minimize: steps 0 of at most 5000, value 2, gradient 1, time 0.0 s"  # no scale
    )
    assert "2 steps/s, at most " in lines[-1]
    display(point)  # another solve by the same program
    assert display.rows[-1] == ("time", "0.0 s")


@pytest.mark.quick(1)
@pytest.mark.parametrize("optimizer", [None, "bfgs", "gradient_descent"])
def test_a_panel_is_drawn_where_rich_and_a_terminal_are(optimizer, monkeypatch):
    pytest.importorskip("rich")
    stream = Terminal()
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setenv("TERM", "xterm")
    solution = so.minimize(quartic, jnp.zeros(2), optimizer, max_steps=5, progress=True)
    text = stream.getvalue()
    assert "minimize" in text and "compiling" in text and "of at most 5" in text
    assert solution.message[:30] in text and "╰" in text


def test_lines_take_the_place_of_the_panel_without_rich(monkeypatch):
    stream = Terminal()
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setitem(sys.modules, "rich.live", None)
    so.minimize(quartic, jnp.zeros(2), max_steps=3, progress=True)
    assert stream.getvalue().startswith("minimize: steps 0 of at most 3")


@pytest.mark.slow
def test_a_fit_shows_its_progress_beside_its_callback(screen):
    x = jnp.linspace(0.0, 1.0, 9)
    seen = []
    line = lambda p, x: p["a"] * x + jnp.exp(p["b"] * x)
    fit = so.curve_fit(
        line, x, line({"a": 2.0, "b": 1.0}, x), {"a": 1.0, "b": 0.5},
        callback=seen.append, progress=True,
    )  # fmt: skip
    assert set(seen[-1].params) == {"a", "b"} and len(seen) == int(fit.solution.steps) + 1
    assert screen().splitlines()[-1].endswith(fit.solution.message)


def test_a_callback_that_fails_is_raised_and_the_display_is_closed(screen):
    def refuse(iterate):
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        so.minimize(quartic, jnp.zeros(2), callback=refuse, progress=True)
    assert not _watch._watchers


@pytest.mark.slow
def test_traced_solves_show_lines_and_get_no_panel(screen):
    solve = jax.jit(jax.vmap(lambda p: so.minimize(quartic, p, max_steps=4, progress=True).value))
    values = solve(jnp.array([[0.0, 0.0], [2.0, 3.0]]))
    plain = jax.vmap(lambda p: so.minimize(quartic, p, max_steps=4).value)
    np.testing.assert_allclose(values, plain(jnp.array([[0.0, 0.0], [2.0, 3.0]])), rtol=1e-3)
    assert "minimize: steps 0 of at most 4" in screen()


@pytest.mark.slow
def test_the_host_gets_no_parameters_for_a_display_alone(screen, monkeypatch):
    seen = []
    monkeypatch.setattr(_progress.Display, "__call__", lambda self, it: seen.append(it))
    monkeypatch.setattr(_progress.Display, "end", lambda self, message: None)
    so.minimize(quartic, jnp.zeros(2), max_steps=2, progress=True)
    assert seen and all(it.params is None for it in seen)
    so.minimize(quartic, jnp.zeros(2), max_steps=2, progress=True, callback=lambda it: None)
    assert seen[-1].params.shape == (2,)


def test_progress_must_be_true_or_false():
    with pytest.raises(TypeError, match="minimize got progress=1; pass True or False"):
        so.minimize(quartic, jnp.zeros(2), progress=1)


@pytest.mark.parametrize(
    "seconds, text", [(0.4, "0 s"), (59, "59 s"), (185, "3:05"), (7800, "2:10:00")]
)
def test_a_duration_is_short(seconds, text):
    assert _progress._duration(seconds) == text
