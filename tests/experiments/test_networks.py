"""The benchmark of networks: its problems are what they say, and its table says what was run."""

import math

import jax
import numpy as np
import pytest

from experiments.benchmarks import networks
from experiments.benchmarks.contestants import contestants
from experiments.engine import Run
from experiments.problems import byte_transformer, curves


def test_the_curves_are_as_hard_to_compress_as_the_published_ones():
    images = curves.curves(2000, seed=1)
    assert images.shape == (2000, 784) and 0 <= images.min() and images.max() <= 1
    spectrum = np.linalg.svd(images - images.mean(0), compute_uv=False) ** 2 / len(images)
    assert spectrum.sum() == pytest.approx(24.8, abs=1)
    assert spectrum[18:].sum() == pytest.approx(5.9, abs=0.5)  # Hinton and Salakhutdinov (2006)


def test_the_text_is_that_of_the_listed_modules():
    assert b"class ArgumentParser" in byte_transformer.text()
    assert len(byte_transformer.fingerprint()) == 16
    batch = next(byte_transformer.stream(byte_transformer.load(), 0))
    assert batch["windows"].shape == (64, 65)


@pytest.mark.parametrize("name", networks.NETWORKS)
def test_every_optimizer_takes_a_step_on_every_problem(name):
    problem = networks.NETWORKS[name]
    data = problem.load()
    batch = next(problem.stream(data, 0))
    params = problem.init(jax.random.key(0), data)
    for optimizer in contestants(problem).values():
        if optimizer.name in ("muon", "lbfgs", "hessian-free"):
            continue  # Optax's own; traced elsewhere

        def step(params, optimizer=optimizer):
            tx = optimizer.build(**dict.fromkeys(optimizer.search, 0.1))
            f = problem.objective(batch)
            value, grad = jax.value_and_grad(f)(params)
            extra = {"value": value, "grad": grad, "value_fn": f}
            return tx.update(grad, tx.init(params), params, **extra)[0]

        updates = jax.eval_shape(step, params)
        assert jax.tree.structure(updates) == jax.tree.structure(params), optimizer.name


def test_a_target_counts_from_the_first_step_that_reaches_it():
    columns = {"step": np.arange(4), "error": np.array([9.0, 3.0, 1.0, 2.0])}
    run = Run("p", "o", 0, "step limit", columns)
    assert networks.reached(run, 3.0, "step") == 1
    assert networks.reached(run, 2.0, "step") == 2
    assert math.isnan(networks.reached(run, 0.5, "step"))
