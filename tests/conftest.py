"""What every test shares: eight CPU devices, float64 on request, a bound on compiled programs."""

import importlib.metadata
import itertools
import os
from pathlib import Path

# Read once, when JAX starts; and handed down to the processes that tests start.
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("MPLBACKEND", "Agg")
# Compiling is where the time goes. With JAX 0.10 these together leave a third of it; on the newest,
# where there is the first alone, three quarters of the whole. A value set outside is kept:
# XLA_FLAGS=--xla_backend_optimization_level=3 tests what users run.
FLAGS = {
    "xla_force_host_platform_device_count": "8",
    "xla_backend_optimization_level": "0",
}
if importlib.metadata.version("jaxlib").startswith("0.10."):  # a flag it does not know is fatal
    FLAGS |= {"xla_cpu_use_fusion_emitters": "false"}
given = os.environ.get("XLA_FLAGS", "")
added = [f"--{name}={value}" for name, value in FLAGS.items() if name not in given]
os.environ["XLA_FLAGS"] = " ".join([given, *added]).strip()
# pytest-xdist already keeps every core busy.
for threads in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(threads, "1")

import jax  # noqa: E402
import pytest  # noqa: E402
from hypothesis import HealthCheck, settings  # noqa: E402

# The same examples on every run; and no deadline, since the first example of a test compiles.
settings.register_profile(
    "secondorder",
    deadline=None,
    derandomize=True,
    max_examples=25,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
settings.load_profile("secondorder")


@pytest.fixture
def x64():
    """float64 for this test alone."""
    with jax.enable_x64(True):
        yield


@pytest.fixture(autouse=True)
def _the_global_x64_switch_stays_off():
    yield
    assert not jax.config.jax_enable_x64, "a test left the global x64 switch on"


MEMORY_MAPS = Path("/proc/self/maps")
tests_run = itertools.count(1)


@pytest.fixture(autouse=True)
def _compiled_programs_are_dropped_before_they_exhaust_the_memory_maps():
    # XLA maps about twenty regions per compiled program and Linux allows a process 65,530: a run
    # that compiles some three thousand programs would be killed.
    yield
    if next(tests_run) % 20 == 0 and MEMORY_MAPS.exists():
        if MEMORY_MAPS.read_bytes().count(b"\n") > 25_000:
            jax.clear_caches()
