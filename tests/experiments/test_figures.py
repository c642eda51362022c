"""What the figures show: panels for what was recorded, failures marked, colours told apart."""

import dataclasses
import math

import numpy as np
import pytest
from comparisons import PROBLEM, finished, made, searched
from matplotlib.figure import Figure

from experiments.benchmarks.physics import PHYSICS
from experiments.compare.profiles import ENOUGH, costs, profiles
from experiments.figures import curvature_figure, render, sensitivity_figure
from experiments.figures.curvature import GAINS
from experiments.figures.equation import equation_figure
from experiments.figures.style import decades
from experiments.optimizers import OPTIMIZERS
from experiments.problems import hard_equations

NOTHING = math.nan


def titles(figure) -> list[str]:
    return [axes.get_title() for axes in figure.axes if axes.get_title()]


def panel(figure, title: str):
    return next(axes for axes in figure.axes if axes.get_title() == title)


def legend(figure) -> set[str]:
    legends = [*figure.legends, *(axes.get_legend() for axes in figure.axes)]
    return {text.get_text() for one in legends if one for text in one.get_texts()}


def test_fields_of_an_equation_are_drawn_over_time_and_space():
    """A mesh of each, whose cell at (t, x) is the value there, and the errors of every seed."""
    problem = PHYSICS["wave"]
    exact = problem.load()["held_out_values"]
    runs = [dataclasses.replace(made("adam", [3, 2, 1]), seed=seed) for seed in range(2)]
    for run in runs:
        run.columns["error"] = np.array([1.0, 0.5, 0.1])
    figure = equation_figure(problem, exact + 0.01, "Adam", runs, OPTIMIZERS)
    known, found, wrong, errors = figure.axes[:4]
    mesh = lambda axes: axes.collections[0]
    times, places = np.linspace(0, 1, 51), np.linspace(0, 1, 101)
    u = np.array([[float(hard_equations.standing((t, x))) for t in times[::10]] for x in places])
    np.testing.assert_allclose(mesh(known).get_array()[:, ::10], u, atol=1e-6)
    np.testing.assert_allclose(mesh(found).get_array(), mesh(known).get_array() + 0.01)
    np.testing.assert_allclose(mesh(wrong).get_array(), 0.01, rtol=1e-6)
    assert found.get_title() == "Network by Adam" and legend(figure) == {OPTIMIZERS["adam"].label}
    assert len(errors.lines) == len(runs) + len(problem.targets)


def test_curvature_has_panels_for_what_was_recorded_alone():
    damped = made(
        "hessian-free",
        [3, 2, 1],
        gain=[NOTHING, 1.0, 0.5],
        scale=[NOTHING, 0.1, 0.01],
        iterations=[NOTHING, 4, 7],
        rejections=[NOTHING, 0, 0],
    )
    figure = curvature_figure(PROBLEM, [damped, made("adam", [3, 2, 1])])
    assert titles(figure) == ["Damping", "Gain ratio", "Inner iterations", "Accepted steps"]
    (line,) = panel(figure, "Damping").lines
    np.testing.assert_array_equal(line.get_xydata(), [[1, 0.1], [2, 0.01]])
    assert legend(figure) == {"Hessian-free"}


def test_a_radius_is_not_drawn_as_damping_nor_a_direct_solver_as_iterations():
    run = made(
        "levenberg-marquardt",
        [3, 3, 1],
        gain=[NOTHING, -50.0, 1.0],
        scale=[NOTHING, math.inf, 2.0],
        iterations=[NOTHING, 1, 1],
        rejections=[NOTHING, 1, 1],
    )
    figure = curvature_figure(PROBLEM, [run])
    assert titles(figure) == ["Trust region", "Gain ratio", "Accepted steps"]
    accepted = panel(figure, "Accepted steps").lines[0].get_ydata()
    np.testing.assert_array_equal(accepted, [0.0, 0.5])
    gains = panel(figure, "Gain ratio").lines[0].get_ydata()
    np.testing.assert_array_equal(gains, [GAINS[0], 1.0])


def test_there_is_no_curvature_figure_of_baselines_nor_of_methods_that_report_nothing():
    quiet = made("newton", [2, 1], gain=[NOTHING, math.inf], scale=[NOTHING, 0.0])
    assert curvature_figure(PROBLEM, [made("adam", [2, 1]), quiet]) is None
    assert curvature_figure(PROBLEM, [made("newton", [1.0])]) is None


def test_sensitivity_marks_what_diverged_and_what_was_chosen():
    tunings = {
        "adam": searched({0.1: 2.0, 1.0: 0.5, 10.0: math.inf}),
        "gradient-descent": searched({0.1: 0.7, 1.0: math.inf}),
    }
    figure = sensitivity_figure(PROBLEM, tunings, 0.25)
    (axes,) = figure.axes
    crosses = [line for line in axes.lines if line.get_marker() == "X" and len(line.get_xdata())]
    assert [list(line.get_xdata()) for line in crosses] == [[10.0], [1.0]]
    rings = [line for line in axes.lines if line.get_markerfacecolor() == "none"]
    places = [line.get_xydata()[0] for line in rings[:2]]
    np.testing.assert_allclose(places, [(1.0, 0.25), (0.1, 0.45)])
    assert {"Diverged", "Chosen"} <= legend(figure)
    assert len(legend(figure)) == 4
    assert axes.get_xlabel() == "Learning rate"


def test_sensitivity_shows_the_steps_where_a_trial_converged():
    figure = sensitivity_figure(PROBLEM, {"adam": searched({0.1: 2.0, 1.0: 0.0}, 1.0)}, 0.0)
    first, second = figure.axes
    assert first.get_yscale() == "log"
    assert min(first.lines[0].get_ydata()) > 0  # an exact zero has a place on the axis
    np.testing.assert_array_equal(second.lines[0].get_ydata(), [math.nan, 100])
    assert sensitivity_figure(PROBLEM, {}, 0.0) is None


def many(count: int):
    """Newton wins the first, Adam the others; L-BFGS arrives nowhere."""
    for i in range(count):
        problem = dataclasses.replace(PROBLEM, name=f"problem-{i}")
        slow, fast = [1, 0.9, 0.8, 0.1], [1, 0.1]
        yield finished(
            made("newton", fast if i == 0 else slow),
            made("adam", slow if i == 0 else fast),
            made("lbfgs", [1, 0.9]),
            problem=problem,
        )


def test_profiles_count_the_problems_within_a_factor_of_the_best():
    found = costs(list(many(3)), "steps")
    np.testing.assert_array_equal(found["newton"], [1, 3, 3])
    np.testing.assert_array_equal(found["adam"], [3, 1, 1])
    np.testing.assert_array_equal(found["lbfgs"], [math.inf] * 3)


@pytest.mark.parametrize("count", [ENOUGH - 1, ENOUGH])
def test_profiles_are_drawn_of_twenty_problems_and_more(count):
    figure = profiles(list(many(count)))
    assert (figure is not None) == (count >= 20)
    if figure:
        adam = next(line for line in figure.axes[0].lines if line.get_label().startswith("Adam"))
        heights = dict(zip(adam.get_xdata(), adam.get_ydata(), strict=True))
        assert heights[1.0] == 0.95
        assert heights[3.0] == 1.0
        assert len(render(figure, "png")) > 10_000


def test_a_logarithmic_axis_has_labels_also_within_a_decade():
    for low, high, labels in (
        (0.5, 2e3, ["10⁰", "10¹", "10²", "10³"]),
        (0.15, 0.7, ["0.2", "0.5"]),
    ):
        axes = Figure().subplots()
        decades(axes, "y")
        axes.set_ylim(low, high)
        ticks = [(at, axes.yaxis.get_major_formatter()(at)) for at in axes.get_yticks()]
        assert [text for at, text in ticks if low <= at <= high] == labels
