"""Which runs `make portable` makes on which processor, and how a tolerance is made."""

import numpy as np
import portable
import pytest
from tolerances import rounding

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
