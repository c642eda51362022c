"""The search for a learning rate: a fixed budget, out beyond the edge, then in around the best."""

import math

import pytest

from experiments.engine import prepare, set_up
from experiments.optimizers import OPTIMIZERS
from experiments.problems import PROBLEMS
from experiments.tuning import Trial, next_settings, ranked, tune


def trial(setting: float, value: float, steps: int = 100, converged: bool = False) -> Trial:
    return Trial(setting, value, steps, converged)


def test_the_best_at_an_edge_moves_the_search_beyond_it():
    assert next_settings([trial(0.1, 3.0), trial(1.0, 2.0)]) == pytest.approx([10.0])
    assert next_settings([trial(0.1, 2.0), trial(1.0, 3.0)]) == pytest.approx([0.01])


def test_the_best_inside_is_refined_on_both_sides():
    tried = [trial(0.01, 3.0), trial(1.0, 1.0), trial(100.0, 3.0)]
    assert next_settings(tried) == pytest.approx([0.1, 10.0])


def test_where_everything_diverges_the_search_goes_down():
    tried = [trial(0.1, math.inf), trial(1.0, math.inf)]
    assert next_settings(tried) == pytest.approx([0.01])


def test_converging_early_beats_converging_late_beats_a_low_value():
    expected = [
        trial(3.0, 0.2, steps=40, converged=True),
        trial(2.0, 0.2, steps=60, converged=True),
        trial(1.0, 0.2001),
        trial(0.5, 0.3),
        trial(9.0, math.inf, steps=10),
    ]
    assert ranked(expected[::-1]) == expected


def test_a_flat_region_far_above_the_least_value_is_no_convergence():
    flat = trial(10.0, 195.6, steps=10, converged=True)
    tried = [flat, trial(0.1, 0.2275, steps=400), trial(1.0, 0.5, steps=400)]
    assert ranked(tried)[0].setting == 0.1 and ranked(tried)[-1] == flat
    assert next_settings(tried) == pytest.approx([0.01])
    vanishing = [trial(1.0, 1e-14, 90, converged=True), trial(2.0, 1e-11, 40, converged=True)]
    assert ranked([*vanishing, trial(3.0, 24.0)])[0].setting == 2.0


def test_the_budget_of_trials_is_kept_and_counted():
    prepared = prepare(set_up(PROBLEMS["rosenbrock"]), OPTIMIZERS["adam"])
    seen: list[Trial] = []
    found = tune(prepared, trials=8, steps=40, on_trial=seen.append)
    assert list(found.trials) == seen
    assert len(found.trials) == 8
    assert found.gradient_equivalents == 8 * 40
    assert found.best.value == min(one.value for one in seen)


def test_a_search_that_was_interrupted_keeps_its_trials_and_goes_the_same_way():
    prepared = prepare(set_up(PROBLEMS["rosenbrock"]), OPTIMIZERS["adam"])
    whole = tune(prepared, trials=9, steps=20)
    seen: list[Trial] = []
    resumed = tune(prepared, trials=9, steps=20, kept=whole.trials[:7], on_trial=seen.append)
    assert resumed == whole
    assert tuple(seen) == whole.trials[7:]
