"""Steps and their reports: numbers of settled dtypes, and what a state keeps of them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from secondorder.step import Path, Report, Step, Stop, make_step


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
def test_numbers_have_a_dtype_of_their_own_whatever_a_solver_reports(x64, dtype):
    report = Report(np.int64(3), residual=0.5, stopped=Stop.SINGULAR, full=np.True_)
    step = make_step(jnp.ones(4, dtype), -1, report)
    for x in (step, Step(report=Report(order=0)).settled(dtype)):
        leaves = jax.tree.leaves(x.without_vectors())
        assert not any(leaf.weak_type for leaf in leaves)
        assert {leaf.dtype for leaf in leaves} == set(map(jnp.dtype, (dtype, jnp.int32, bool)))
    assert step.length == 2 and step.report.stopped == Stop.SINGULAR and step.report.order == 1


def test_a_state_keeps_the_numbers_of_a_step_alone():
    step = make_step(jnp.ones(2), -1.0, candidates=Path((jnp.ones(2),)))
    kept = step.evaluating(jnp.asarray(2)).without_vectors()
    assert all(jnp.ndim(leaf) == 0 for leaf in jax.tree.leaves(kept))
    assert kept.report.trial_evaluations == 2 and kept.candidates is None
