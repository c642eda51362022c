"""The remaining time is that of what is left to run."""

import io

import pytest

from experiments.bar import Bar


@pytest.fixture
def clock():
    return [0.0]


@pytest.fixture
def bar(clock):
    bar = Bar(100, file=io.StringIO())
    bar._time = lambda: clock[0]
    bar.start_t = 0.0
    yield bar
    bar.close()


def test_the_bar_says_how_long_it_takes_yet(bar, clock):
    clock[0] = 20.0
    bar.update(10)
    assert "00:20, 03:00 to go" in str(bar)


def test_parts_that_were_found_finished_say_nothing_about_the_pace(bar, clock):
    bar.skip(80)
    clock[0] = 20.0
    bar.update()
    bar.skip(9)
    clock[0] = 40.0
    bar.update()
    assert bar.n == 91
    assert bar.skipped == 89
    assert "00:40, 03:00 to go" in str(bar)  # nine parts at twenty seconds each


def test_before_anything_was_run_nothing_is_promised(bar, clock):
    bar.skip(50)
    clock[0] = 5.0
    assert "00:05, ? to go" in str(bar)
