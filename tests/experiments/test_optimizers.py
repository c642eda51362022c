"""Who may take part in a comparison."""

import inspect

import pytest

from experiments.optimizers import OPTIMIZERS
from experiments.problems import PROBLEMS
from secondorder import methods

OURS = set(methods.__all__) - {"scale_by_quadratic_model"}  # which is for any direction
NAMED_OTHERWISE = {"lbfgs": "limited-memory-bfgs"}  # for Optax has one, too


@pytest.mark.parametrize("method", sorted(OURS))
def test_every_method_of_the_library_is_in_the_comparison(method):
    name = NAMED_OTHERWISE.get(method, method.replace("_", "-"))
    assert name in OPTIMIZERS
    assert f"so.{method}(" in inspect.getsource(OPTIMIZERS[name].build)


@pytest.mark.parametrize("optimizer", OPTIMIZERS.values(), ids=OPTIMIZERS)
def test_every_optimizer_is_run_on_some_small_problem(optimizer):
    assert any(not optimizer.left_out(problem) for problem in PROBLEMS.values())


def test_both_kinds_of_hyperparameters_are_searched():
    searched = {name for optimizer in OPTIMIZERS.values() for name in optimizer.search}
    assert searched == {"learning_rate", "damping"}


def test_a_method_for_layers_is_left_out_where_there_is_none_and_the_reason_is_said():
    assert "so.layer_table" in OPTIMIZERS["kfac"].left_out(PROBLEMS["rosenbrock"])
    assert not OPTIMIZERS["kfac"].left_out(PROBLEMS["photo-patches"])
