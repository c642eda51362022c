"""What every test shares: eight CPU devices, float64 on request, few programs and little memory."""

import collections
import ctypes
import gc
import importlib.metadata
import os
import sys
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

# Programs that took long to compile are kept beside the packages, for other workers and the next
# run, which takes two thirds of the time; `make clean` removes them.
if sys.prefix != sys.base_prefix:
    os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(Path(sys.prefix) / "programs"))
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.1")

import jax  # noqa: E402
import pytest  # noqa: E402
from hypothesis import HealthCheck, settings  # noqa: E402

from secondorder import notices  # noqa: E402
from secondorder.optimize import _programs  # noqa: E402

# The same examples on every run; and no deadline, since the first example of a test compiles.
settings.register_profile(
    "secondorder",
    deadline=None,
    derandomize=True,
    max_examples=25,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
settings.load_profile("secondorder")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    """Of a test marked ``quick(n)``, n cases spread over all stay quick; the others are slow."""
    cases = collections.defaultdict(list)
    for item in items:
        if mark := item.get_closest_marker("quick"):
            cases[item.path, item.originalname, *mark.args].append(item)
    for (_, _, count), of_a_test in cases.items():
        kept = {i * len(of_a_test) // count for i in range(count)}
        for i, item in enumerate(of_a_test):
            if i not in kept:
                item.add_marker(pytest.mark.slow)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item):
    """Skips float16 where XLA is held to SSE 4.2: it lacks the conversion, ``__extendhfsf2``."""
    try:
        return (yield)
    except jax.errors.JaxRuntimeError as error:
        lacking = "Failed to materialize symbols" in str(error)
        if lacking and "--xla_cpu_max_isa=SSE4_2" in os.environ["XLA_FLAGS"]:
            pytest.skip("XLA has no float16 without the processor's own conversions")
        raise


@pytest.fixture
def x64():
    """float64 for this test alone."""
    with jax.enable_x64(True):
        yield


@pytest.fixture(autouse=True)
def _the_global_x64_switch_stays_off():
    yield
    assert not jax.config.jax_enable_x64, "a test left the global x64 switch on"


# Compiling is where the time goes: a test that compiles more jits too little of what it does, or
# makes constants of its data. The first test of a process also compiles up to a hundred operations
# of JAX's own; so less is no bound.
PROGRAMS = 400
programs = 0


def count_programs(event: str, duration: float, **kwargs):
    global programs
    programs += event == "/jax/core/compile/backend_compile_duration"


jax.monitoring.register_event_duration_secs_listener(count_programs)


@pytest.fixture(autouse=True)
def _a_test_compiles_few_programs(request):
    before, mark = programs, request.node.get_closest_marker("programs")
    allowed = mark.args[0] if mark else PROGRAMS
    if request.node.get_closest_marker("slow") or isinstance(request.node, pytest.DoctestItem):
        allowed = float("inf")  # an example in a docstring is written op by op, to be read
    yield
    compiled = programs - before
    assert compiled <= allowed, (
        f"the test compiled {compiled} programs, more than {allowed}: jit the whole of what it "
        "does, with its data as arguments, or raise the bound by @pytest.mark.programs(...)"
    )


@pytest.fixture(autouse=True)
def _compilations_are_counted_anew():
    """The warning of a function that compiles at each call is for one program, not for a suite."""
    yield
    _programs._compiled.clear()


class Everything(set):
    def __contains__(self, _):
        return True


notices._given = Everything()  # while modules of tests are imported


@pytest.fixture(autouse=True)
def _advice_is_for_what_is_to_be_read(request, monkeypatch):
    """Pages and docstrings must run without a warning; tests try what it warns of."""
    read = request.node.path.name in ("test_readme.py", "test_notices.py")
    read |= isinstance(request.node, pytest.DoctestItem)
    monkeypatch.setattr(notices, "_given", set() if read else Everything())


@pytest.fixture(autouse=True)
def _memory_is_given_back():
    yield
    memory.give_back()


class Memory:
    """What this process holds, and gives back where it has grown.

    Most of what compiling took is free again, but in the hands of the C library: three quarters of
    a gigabyte after 700 programs, of which it gives 700 MB back when asked. The programs themselves
    are dropped where that is not enough, and after a thousand: XLA maps up to twenty regions of
    memory for each, and Linux allows a process 65,530.
    """

    START, STEP = 900, 150  # MiB
    PROGRAMS = 1000
    HELD = Path("/proc/self/statm")

    def __init__(self):
        self.limit, self.dropped = self.START, 0
        library = ctypes.CDLL(None) if self.HELD.exists() else None
        self.trim = getattr(library, "malloc_trim", None)

    def give_back(self):
        if programs - self.dropped > self.PROGRAMS:
            self.drop()
        if self.trim and self.held() > self.limit:
            self.trim(0)
            if self.held() > self.limit:
                self.drop()
                self.trim(0)
                self.limit = max(self.START, self.held() + self.STEP)

    def drop(self):
        jax.clear_caches()
        gc.collect()
        self.dropped = programs

    def held(self) -> float:
        pages = int(self.HELD.read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


memory = Memory()
