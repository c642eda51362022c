"""Experiments of a page: each is short, explains itself, runs, and shows what it printed."""

import re

import pytest

from experiments import studies
from experiments.command_line import main

every_study = pytest.mark.parametrize("folder", studies.FOLDERS.values(), ids=studies.FOLDERS)


@every_study
def test_a_study_is_a_page_of_cells_beside_what_it_printed(folder):
    lines = (folder / "run.py").read_text().splitlines()
    assert len(lines) <= 60
    assert lines[0] == "# %% [markdown]"
    assert sum(line.startswith("# %%") for line in lines) >= 4
    readme = (folder / "README.md").read_text()
    assert readme.startswith(f"# {studies.title(folder)}\n")
    printed = readme.split(studies.BEGIN)[1].split(studies.END)[0]
    assert len(re.findall(r"^\| ?:---", printed, re.MULTILINE)) >= 3


@pytest.mark.slow
@every_study
def test_a_study_runs(folder, tmp_path, capsys):
    limits = ["--steps", "3", "--seeds", "1", "--out", str(tmp_path)]
    assert main(["study", folder.name, *limits]) == 0
    assert len(re.findall(r"^\| ?:---", capsys.readouterr().out, re.MULTILINE)) >= 3


def test_an_unknown_study_is_answered_with_the_nearest(capsys):
    assert main(["study", "convx"]) == 2
    assert "convex" in capsys.readouterr().err


def test_a_new_folder_is_a_new_study(tmp_path, capsys):
    script = "# %% [markdown]\n# # Two\n\n# %%\nprint('one and one is', 1 + 1)\n"
    (tmp_path / "run.py").write_text(script)
    (tmp_path / "README.md").write_text(f"# Two\n\n{studies.BEGIN}\nold\n{studies.END}\n\nend\n")
    assert studies.title(tmp_path) == "Two"
    printed = studies.play(tmp_path, studies.Limits())
    assert printed == capsys.readouterr().out == "one and one is 2\n"
    page = studies.publish(tmp_path, printed).read_text()
    assert page.splitlines()[2:5] == [studies.BEGIN, "", "one and one is 2"]
    assert "old" not in page and page.endswith("end\n")
