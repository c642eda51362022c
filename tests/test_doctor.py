"""The report of the installation."""

import pytest

from secondorder import doctor


def test_the_report_names_versions_and_every_check_holds(capsys):
    assert doctor.main() == 0
    printed = capsys.readouterr().out
    for name in (*doctor.PACKAGES, "devices", "float64"):
        assert name in printed
    assert printed.count(" ok\n") == 2


def test_a_wrong_answer_is_an_exit_status(capsys, monkeypatch):
    monkeypatch.setattr(doctor, "_fit_is_right", lambda: False)
    assert doctor.main() == 1
    assert "least_squares in float32     WRONG" in capsys.readouterr().out


@pytest.mark.parametrize("package", ["jax", "no-such-package"])
def test_a_package_without_metadata_is_named_as_such(package):
    assert ("not installed" in doctor._version(package)) == (package != "jax")
