"""Which runs `make portable` makes on which processor, and how a tolerance is made."""

import numpy as np
import portable
import pytest
from tolerances import assert_close, condition_of, rounding

OLD = {"sse4_2"}
PROCESSORS = {
    "unknown": set(),
    "old": OLD,
    "common": OLD | portable.AVX2,
    "new": OLD | portable.AVX2 | portable.AVX512,
}


@pytest.mark.parametrize("has", PROCESSORS.values(), ids=PROCESSORS)
def test_every_value_that_the_processor_can_run_has_a_run_and_no_other(has):
    runs = list(portable.combinations(has))
    seen = [set(values) - {""} for values in zip(*runs, strict=True)]
    assert seen[0] == {name for name, needs in portable.INSTRUCTIONS.items() if needs <= has}
    assert seen[1] == {name for name, needs in portable.KERNELS.items() if needs <= has}
    assert seen[2] == {"1", "4"}
    assert len(runs) == max(map(len, seen))


def test_a_run_keeps_the_flags_that_were_given_and_adds_its_own(monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", "--xla_backend_optimization_level=3")
    chosen = portable.environment("AVX2", "Zen", "4")
    assert chosen["XLA_FLAGS"] == "--xla_backend_optimization_level=3 --xla_cpu_max_isa=AVX2"
    assert chosen["OPENBLAS_CORETYPE"] == "Zen"
    assert {chosen[name] for name in ("NPROC", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS")} == {"4"}
    assert "XLA_FLAGS" not in portable.environment("", "", "1")


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_tolerance_grows_with_the_condition_and_the_size(dtype):
    assert rounding(dtype=dtype) == 100 * np.finfo(dtype).eps
    assert rounding(10, 3, dtype) == pytest.approx(30 * rounding(dtype=dtype))
    with pytest.raises(AssertionError, match="one processor"):
        rounding(c=10)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_close_is_within_the_rounding_of_the_largest_entry(dtype):
    expected = np.array([4.0, 1e-3])
    noise = np.array([0, 4 * rounding(dtype=dtype)])
    assert_close((expected + 0.5 * noise).astype(dtype), expected)
    assert_close((expected + 5 * noise).astype(dtype), expected, 10)
    for allowed in ({}, {"condition": 10, "norm": 0.1}):
        with pytest.raises(AssertionError, match="Not equal to tolerance"):
            assert_close((expected + 2 * noise).astype(dtype), expected, **allowed)


def test_the_condition_of_a_singular_matrix_is_that_of_its_rank():
    assert condition_of(np.diag([6.0, 3.0, 1e-13, 0.0])) == pytest.approx(2)
    assert condition_of(np.zeros((2, 2))) == 1
