"""The benchmark of networks: its problems are what they say, and its table says what was run."""

import dataclasses
import gzip
import math
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from matplotlib.figure import Figure
from tolerances import assert_close

import secondorder as so
from experiments.benchmarks import networks, physics
from experiments.benchmarks.contestants import contestants
from experiments.benchmarks.networks import Contest
from experiments.benchmarks.tables import Request
from experiments.engine import Run
from experiments.errors import Unavailable
from experiments.optimizers import OPTIMIZERS
from experiments.problems import (
    byte_transformer,
    curves,
    fashion_mnist,
    hard_equations,
    poisson,
    poisson_5d,
)
from experiments.problems import physics as physics_network


def test_the_curves_are_as_hard_to_compress_as_the_published_ones():
    images = curves.curves(2000, seed=1)
    assert images.shape == (2000, 784) and 0 <= images.min() and images.max() <= 1
    spectrum = np.linalg.svd(images - images.mean(0), compute_uv=False) ** 2 / len(images)
    assert spectrum.sum() == pytest.approx(24.8, abs=1)
    assert spectrum[18:].sum() == pytest.approx(5.9, abs=0.5)  # Hinton and Salakhutdinov (2006)


def test_the_text_is_that_of_the_listed_modules():
    assert b"class ArgumentParser" in byte_transformer.text()
    assert len(byte_transformer.fingerprint()) == 16
    batch = next(byte_transformer.PROBLEM.stream(byte_transformer.load(), 0))
    assert batch["windows"].shape == (64, 65)


def test_the_page_says_where_runs_end_and_what_was_set_by_hand():
    field = networks.Field(networks.NETWORKS, contestants, "adamw", ())
    problem = field.problems["curves"]
    everyone = field.contestants(problem)
    chosen = [everyone[name] for name in ("adamw", "lbfgs", "kfac", "hessian-free-kfac")]
    units = [networks._unit(problem, each, networks.WHOLE, "source") for each in chosen]
    words = " ".join(networks._words([problem], units, networks.WHOLE).split())
    assert "curves 300 (150: K-FAC) (40: Hessian-free, by K-FAC)." in words
    assert "kfac on curves: sample_every=5, trial_every=5, curvature of one example in 2;" in words
    assert "hessian-free-kfac on curves: tolerance=0.002." in words
    assert "(None to tune: L-BFGS (Optax).)" in words


def write_clothes(folder, monkeypatch, training, test):
    """Files of random images as Debian's package has them; they are not kept after the test."""
    generator = np.random.default_rng(0)
    for part, count in (("train", training), ("t10k", test)):
        images = generator.integers(0, 256, (count, 28, 28)).astype(np.uint8)
        labels = (np.arange(count) % 10).astype(np.uint8)
        pixels = gzip.compress(bytes(16) + images.tobytes())
        (folder / f"{part}-images-idx3-ubyte.gz").write_bytes(pixels)
        classes = gzip.compress(bytes(8) + labels.tobytes())
        (folder / f"{part}-labels-idx1-ubyte.gz").write_bytes(classes)
    monkeypatch.setattr(fashion_mnist, "PACKAGE", folder)
    monkeypatch.setattr(fashion_mnist, "TRAINING", training)
    return dataclasses.replace(fashion_mnist.PROBLEM, load=fashion_mnist.load.__wrapped__)


def test_images_and_classes_of_the_clothes_stay_together(monkeypatch, tmp_path):
    data = write_clothes(tmp_path, monkeypatch, training=512, test=20).load()
    assert data["images"].shape == (512, 28, 28, 1) and data["images"].dtype == np.uint8
    np.testing.assert_array_equal(data["labels"], np.arange(512) % 10)
    np.testing.assert_array_equal(data["held_out_labels"], np.arange(20) % 10)
    drawn = np.random.default_rng(0).integers(0, 256, (512, 28, 28))
    np.testing.assert_array_equal(data["images"][..., 0], drawn)


def test_the_error_of_the_clothes_is_the_share_of_wrong_classes(monkeypatch, tmp_path):
    problem = write_clothes(tmp_path, monkeypatch, training=512, test=40)
    data = problem.load()
    params = problem.init(jax.random.key(0), data)
    only = lambda k: (
        jax.tree.map(lambda x: 0 * x, params["head"]) | {"bias": jnp.zeros(10).at[k].set(1.0)}
    )
    for k in (0, 7):  # a tenth of the images are of each class
        error = problem.metrics(params | {"head": only(k)}, data)["error"]
        assert_close(error, 0.9)


def test_data_that_cannot_be_had_are_named_or_left_out(monkeypatch, capsys):
    def refused(*args, **kwargs):
        raise OSError("no network")

    monkeypatch.setattr(fashion_mnist, "PACKAGE", Path("nowhere"))
    monkeypatch.setattr(fashion_mnist, "fetch_openml", refused)
    problem = dataclasses.replace(fashion_mnist.PROBLEM, load=fashion_mnist.load.__wrapped__)
    known = {"digits-classifier": networks.NETWORKS["digits-classifier"], problem.name: problem}
    field = networks.Field(known, contestants, "adamw", ())
    assert [each.name for each in networks._chosen(Request(), field)] == ["digits-classifier"]
    assert "fashion-mnist is left out. Fashion-MNIST is not on" in capsys.readouterr().out
    with pytest.raises(Unavailable, match="dataset-fashion-mnist"):
        networks._chosen(Request(problems=["fashion-mnist"]), field)


LARGE = ("byte-transformer", "byte-transformer-large", "curves", "curves-minibatches")


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=[pytest.mark.slow] * (name in LARGE)) for name in networks.NETWORKS],
)
def test_every_optimizer_takes_a_step_on_every_problem(name, monkeypatch, tmp_path):
    problem = networks.NETWORKS[name]
    if problem is fashion_mnist.PROBLEM:
        problem = write_clothes(tmp_path, monkeypatch, training=512, test=8)
    data = problem.load()
    batch = next(problem.stream(data, 0))
    params = problem.init(jax.random.key(0), data)
    racing = contestants(problem)
    assert not {optimizer.step_class for optimizer in racing.values()} - set(problem.steps)
    for optimizer in racing.values():
        if optimizer.name in ("muon", "lbfgs"):
            continue  # Optax's own; traced elsewhere

        def step(params, optimizer=optimizer):
            tx = optimizer.build(**dict.fromkeys(optimizer.search, 0.1))
            f = problem.objective(batch)
            value, grad = jax.value_and_grad(f)(params)
            extra = {"value": value, "grad": grad, "value_fn": f}
            return tx.update(grad, tx.init(params), params, **extra)[0]

        updates = jax.eval_shape(step, params)
        assert jax.tree.structure(updates) == jax.tree.structure(params), optimizer.name


def found(*errors: tuple[float, ...], targets=(3.0, 2.0, 0.5)):
    """The results table of runs with these errors after each step, and what is shown of it."""
    problem = dataclasses.replace(poisson.PROBLEM, targets=targets)
    optimizer = physics.contestants(problem)["adam"]
    steps = np.arange(len(errors[0]), dtype=float)
    runs = []
    for seed, error in enumerate(errors):
        columns = dict.fromkeys(("step", "seconds", "gradient_equivalents", "value"), steps)
        runs.append(Run(problem.name, "adam", seed, "", columns | {"error": np.array(error)}))
    contest = networks.Contest(optimizer, runs, 1e-3, 0.5)
    table = networks._results(problem, [contest])
    return table, networks._table(problem, [contest], table)


def test_a_target_counts_from_the_first_step_that_reaches_it():
    table, shown = found((9.0, 3.0, 1.0, 2.0))
    assert list(table.steps) == [1, 2, math.inf]
    assert list(shown.iloc[0])[2:11] == ["1", "1.00", "1", "2", "2.00", "2", "-", "-", "-"]


@pytest.mark.parametrize("name", physics.PHYSICS)
def test_every_optimizer_takes_a_step_on_every_equation(name):
    problem = physics.PHYSICS[name]
    with jax.enable_x64(problem.float64):
        data = problem.load()
        params = problem.init(jax.random.key(0), data)
        f = problem.objective(next(problem.stream(data, 0)))
        for optimizer in physics.contestants(problem).values():

            def step(params, optimizer=optimizer):
                tx = optimizer.built(f, dict.fromkeys(optimizer.search, 0.1))
                value, grad = jax.value_and_grad(f)(params)
                extra = {"value": value, "grad": grad, "value_fn": f}
                return tx.update(grad, tx.init(params), params, **extra)[0]

            updates = jax.eval_shape(step, params)
            assert jax.tree.structure(updates) == jax.tree.structure(params), optimizer.name


def test_the_solution_of_poissons_equation_has_no_residual(x64):
    """The residual of any u is ``Δu + f``; that of u* has to vanish, by finite differences."""
    h, x = 1e-4, np.array([0.3, 0.45])
    around = sum(poisson.solution(x + s * h * e) for s in (-1, 1) for e in np.eye(2))
    bend = (around - 4 * poisson.solution(x)) / h**2
    np.testing.assert_allclose(bend + 2 * np.pi**2 * poisson.solution(x), 0, atol=1e-5)
    data = poisson.load()
    params = poisson.PROBLEM.init(jax.random.key(0), data)
    of = lambda x, boundary: poisson.residual(params, (jnp.asarray(x), jnp.asarray(boundary)))
    u = lambda x: physics_network.u(params, jnp.asarray(x))
    around = sum(u(x + s * h * e) for s in (-1, 1) for e in np.eye(2))
    within = ((around - 4 * u(x)) / h**2 + 2 * np.pi**2 * poisson.solution(x)) / 30
    np.testing.assert_allclose(of(x, False), within, rtol=1e-5)
    assert_close(of(x, True), u(x) / 30**0.5)


@pytest.mark.parametrize(
    "equation",
    [hard_equations.CONVECTION, hard_equations.REACTION, hard_equations.WAVE],
    ids=lambda equation: equation.name,
)
def test_the_solutions_of_the_hard_equations_solve_them(equation, x64):
    """By finite differences of the solution, and by its values at the start and at the ends."""
    h, (t, x) = 1e-4, (0.3, 0.45 * equation.width)
    u = lambda t, x: equation.solution(jnp.array([t, x]))
    in_time = (u(t + h, x) - u(t - h, x)) / (2 * h)
    in_space = (u(t, x + h) - u(t, x - h)) / (2 * h)
    left = {
        "convection": in_time + 40 * in_space,
        "reaction": in_time - 5 * u(t, x) * (1 - u(t, x)),
        "wave": (u(t + h, x) + u(t - h, x) - 2 * u(t, x)) / h**2
        - 4 * (u(t, x + h) + u(t, x - h) - 2 * u(t, x)) / h**2,
    }[equation.name]
    np.testing.assert_allclose(left, 0, atol=2e-2 if equation.name == "wave" else 1e-3)
    inside = equation.inside(equation.solution, jnp.array([t, x]))
    assert_close(inside, 0, condition=100, norm=100)
    start = {
        "convection": jnp.sin(x),
        "reaction": jnp.exp(-((x - jnp.pi) ** 2) / (2 * (jnp.pi / 4) ** 2)),
        "wave": jnp.sin(jnp.pi * x) + 0.5 * jnp.sin(5 * jnp.pi * x),
    }[equation.name]
    assert_close(u(0.0, x), start)
    assert_close(u(t, 0.0), u(t, equation.width) if equation.periodic else 0, 100, norm=1)


def test_the_rows_of_the_hard_equations_are_found_apart(x64):
    problem = hard_equations.PROBLEMS[0]
    data = problem.load()
    params = problem.init(jax.random.key(0), data)
    model = problem.objective(next(problem.stream(data, 0))).model
    flops = lambda fn: jax.jit(fn).lower(params).compile().cost_analysis()["flops"]
    rows = sum(x.size for x in jax.tree.leaves(model(params)))
    gradient = jax.grad(lambda p: jnp.sum(model(p) ** 2))
    assert flops(lambda p: so.jacobian(model, p)) < flops(gradient) * rows / 100


def test_the_picture_of_an_equation_is_of_the_middle_seed_of_the_best_method(x64, monkeypatch):
    drawn = []
    monkeypatch.setattr(physics, "equation_figure", lambda *args: drawn.append(args) or Figure())
    problem = physics.PHYSICS["heat"]
    data = problem.load()
    contests = {}
    for name, errors in {"adam": [0.1, 0.3, 0.2], "natural-gradient": [0.01, 9.0, 0.03]}.items():
        runs = []
        for seed, error in enumerate(errors):
            end = problem.init(jax.random.key(seed), data)
            runs.append(Run("heat", name, seed, "", {"error": np.array([error])}, end=end))
        contests[name] = Contest(OPTIMIZERS[name], runs, 1.0, 1.0)
    found = physics.picture(problem, contests)
    assert (
        found is not None
        and found.name == "equation-heat"
        and "Natural gradient" in found.alternative
    )
    ((_, values, label, runs, _, variables),) = drawn
    assert variables == ("t", "x")
    assert label == "Natural gradient" and len(runs) == 6
    params = contests["natural-gradient"].runs[2].end
    expected = jax.vmap(lambda x: physics_network.u(params, x))(
        jnp.asarray(data["held_out_points"])
    )
    assert_close(values, expected)
    assert physics.picture(physics.PHYSICS["poisson-5d"], contests) is None


def test_the_points_fill_the_square_and_its_boundary():
    data = poisson.load()
    points, on = data["points"], data["on_boundary"]
    at_edge = np.any((points == 0) | (points == 1), axis=1)
    np.testing.assert_array_equal(at_edge, on)
    assert len(np.unique(points, axis=0)) == len(points) == 900 + 120


def test_a_target_that_some_seeds_miss_says_how_many_reach_it():
    _, shown = found((9.0, 1.0), (9.0, 5.0), (9.0, 1.0), targets=(6.0, 2.0))
    assert list(shown.iloc[0])[2:8:3] == ["1", "1 (2 of 3)"]


def test_the_cube_has_the_published_number_of_parameters_and_its_solution_no_residual(x64):
    params = poisson_5d.PROBLEM.init(jax.random.key(0), {})
    assert sum(x.size for x in jax.tree.leaves(params)) == 10_065
    x = jnp.array([0.1, 0.3, 0.5, 0.7, 0.2])
    f = jnp.pi**2 * poisson_5d.solution(x)
    bend = jnp.trace(jax.hessian(poisson_5d.solution)(x))
    assert_close(bend + f, 0, norm=abs(f))
    params = jax.tree.map(lambda p: p.astype(float), params)
    u = lambda x: physics_network.u(params, x)
    within = jnp.trace(jax.hessian(u)(x)) + f
    found = poisson_5d.residual(params, (x, False)) * poisson_5d.INSIDE**0.5
    assert_close(found, within, norm=abs(f))
    batch = next(poisson_5d.stream({}, 0))
    at_face = np.any((batch["points"] == 0) | (batch["points"] == 1), axis=1)
    np.testing.assert_array_equal(at_face, batch["on_boundary"])
