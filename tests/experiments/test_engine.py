"""The engine: one trace, honest records, named endings."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from lines import LINE, line_objective, sgd
from tolerances import assert_close

from experiments import cost
from experiments.engine import Status, prepare, run, set_up
from experiments.optimizers import OPTIMIZERS
from experiments.problem import minibatches
from experiments.problems import PROBLEMS


@pytest.mark.parametrize("name", ["adam", "lbfgs", "levenberg-marquardt", "newton-cg"])
def test_a_train_step_is_traced_once_however_often_it_is_called(name):
    traced = []

    def objective(batch):
        traced.append(1)
        return line_objective(batch)

    setting = set_up(dataclasses.replace(LINE, objective=objective, grad_norm_target=0.0))
    before = len(traced)
    optimizer = OPTIMIZERS[name]
    prepared = prepare(setting, optimizer)
    assert len(traced) == before + 2  # the start and the step
    for seed in (0, 1):
        run(prepared, seed, 20, dict.fromkeys(optimizer.search, 0.1))
    assert len(traced) == before + 2


@pytest.mark.parametrize("name", ["kfac", "ekfac"])
def test_what_is_built_for_the_layers_of_a_model_sees_them(name):
    setting = set_up(PROBLEMS["matrix-factorisation"])
    result = run(prepare(setting, OPTIMIZERS[name]), 0, 8, {"damping": 0.1})
    value = result.columns["value"]
    assert value[-1] < 0.1 * value[0]


def test_a_hybrid_pays_for_the_hessian_only_where_it_took_it():
    setting = set_up(PROBLEMS["mgh-wood"])
    columns = run(prepare(setting, OPTIMIZERS["hybrid-newton"]), 0, 12).columns
    newton, paid = columns["newton"][1:], np.diff(columns["gradient_equivalents"])
    assert 0 < newton.sum() < len(newton)
    four = columns["products"][1:]
    np.testing.assert_array_equal(four, 4)  # columns, of either
    wanted = 2 + four * np.where(newton, cost.HESSIAN_PRODUCT, cost.TANGENT)
    np.testing.assert_allclose(paid, wanted)


@pytest.mark.parametrize("name", ["gradient-descent-line-search", "newton", "hessian-free"])
def test_the_same_seed_gives_the_same_records(name):
    setting = set_up(LINE)
    prepared = prepare(setting, OPTIMIZERS[name])
    first, again, other = (run(prepared, seed, 8) for seed in (3, 3, 4))
    for column in first.columns.keys() - {"seconds"}:
        np.testing.assert_array_equal(first.columns[column], again.columns[column])
    assert first.columns["value"][0] != other.columns["value"][0]


def test_a_row_describes_the_point_after_that_many_steps():
    setting = set_up(dataclasses.replace(LINE, metrics=lambda params, data: {"slope": params[0]}))
    result = run(prepare(setting, sgd(0.05)), 0, 5)
    assert result.columns["step"].tolist() == [0, 1, 2, 3, 4, 5]
    assert (np.diff(result.columns["value"]) < 0).all()
    assert (np.diff(result.columns["seconds"]) > 0).all()
    with jax.enable_x64(True):
        objective = line_objective(LINE.load())
        params = LINE.init(jax.random.key(0), {})
        for _ in range(3):
            params = params - 0.05 * jax.grad(objective)(params)
        assert_close(result.columns["slope"][3], float(params[0]))
        assert_close(result.columns["value"][3], float(objective(params)))


@pytest.mark.parametrize(
    ("optimizer", "status"),
    [(sgd(0.1), Status.CONVERGED), (sgd(0.0), Status.STALLED), (sgd(1e9), Status.DIVERGED)],
    ids=["converged", "stalled", "diverged"],
)
def test_a_run_ends_by_name(optimizer, status):
    steps = 2000
    result = run(prepare(set_up(LINE), optimizer), 0, steps)
    assert result.status == status
    assert len(result.columns["step"]) < steps
    assert result.failed == (status == Status.DIVERGED)


def test_a_run_out_of_seconds_is_looked_at_and_ends():
    hasty = dataclasses.replace(LINE, seconds=1e-9)
    result = run(prepare(set_up(hasty), sgd(1e-3)), 0, 50, every=10)
    assert result.status == Status.STEP_LIMIT
    np.testing.assert_array_equal(result.columns["step"], [0, 1])


def test_float64_problems_leave_the_switch_of_the_process_alone():
    result = run(prepare(set_up(LINE), sgd(0.1)), 0, 3000)
    assert result.columns["value"][-1] < 1e-15
    assert jnp.ones(()).dtype == jnp.float32


def test_a_minibatch_stream_is_measured_on_all_the_data():
    problem = dataclasses.replace(LINE, stream=minibatches(4))
    result = run(prepare(set_up(problem), sgd(0.05)), 0, 6)
    whole = run(prepare(set_up(LINE), sgd(0.05)), 0, 6)
    assert result.columns["value"][0] == whole.columns["value"][0]
    assert result.columns["value"][1] != whole.columns["value"][1]


def test_minibatches_visit_every_example_once_an_epoch():
    stream = minibatches(4)(LINE.load(), seed=0)
    epoch = np.concatenate([next(stream)["x"] for _ in range(3)])
    assert sorted(epoch) == sorted(LINE.load()["x"])


def test_gradient_equivalents_add_up_from_the_counts_of_each_step():
    setting = set_up(PROBLEMS["rosenbrock"])
    adam = run(prepare(setting, OPTIMIZERS["adam"]), 0, 4, {"learning_rate": 0.1})
    assert adam.columns["gradient_equivalents"].tolist() == [0, 1, 2, 3, 4]

    # Two products of 2/3 for the Jacobian, a gradient, a trial.
    marquardt = run(prepare(setting, OPTIMIZERS["levenberg-marquardt"]), 0, 3)
    np.testing.assert_allclose(np.diff(marquardt.columns["gradient_equivalents"]), 2 * 2 / 3 + 2)

    # Each evaluation of a line search is a gradient, the last one being the next step's; one more
    # to begin with.
    searched = run(prepare(setting, OPTIMIZERS["lbfgs"]), 0, 5).columns
    assert searched["gradient_equivalents"][-1] == 1 + searched["linesearch_steps"][1:].sum()
    newton = run(prepare(setting, OPTIMIZERS["newton"]), 0, 5).columns
    products = 2 * 2 * 5
    assert newton["gradient_equivalents"][-1] == 1 + newton["linesearch_steps"][1:].sum() + products


def test_the_table_of_costs_is_consistent():
    assert cost.GAUSS_NEWTON_PRODUCT == pytest.approx(cost.TANGENT + cost.COTANGENT)
    assert cost.TRIAL == pytest.approx(cost.VALUE + cost.TANGENT)
    assert cost.HESSIAN_PRODUCT == pytest.approx(2 * cost.GRADIENT)
