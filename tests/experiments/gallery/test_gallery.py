"""Every picture of the gallery shows numbers that are right, and the page opens alone."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from experiments.command_line import main
from experiments.gallery import LESSONS, Claim, derivative
from experiments.gallery import page as pages
from experiments.gallery.page import Shown, gallery
from experiments.gallery.walk import walk

UNCLOCKED = [name for name, lesson in LESSONS.items() if not lesson.clocked]
CLOCKED = [name for name, lesson in LESSONS.items() if lesson.clocked]
QUICK = ["secant", "step-size"]
LONG = ("basins", "surfaces")


def check(name: str) -> None:
    lesson = LESSONS[name]
    claims = lesson.claims(lesson.numbers())
    assert claims, "a picture without a checked number"
    assert [str(claim) for claim in claims if not claim.holds] == []


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=[pytest.mark.slow] * (name in LONG)) for name in UNCLOCKED],
)
def test_the_numbers_of_a_picture_are_what_theory_says(name):
    check(name)


@pytest.mark.slow
@pytest.mark.parametrize("name", CLOCKED)
def test_measured_times_are_what_theory_says(name):
    check(name)


@pytest.mark.parametrize("found", [2.0, float("nan"), float("inf")])
def test_a_wrong_number_is_noticed(found):
    assert not Claim("one", found, 1.0, 0.5).holds


@pytest.mark.parametrize("lesson", LESSONS.values(), ids=LESSONS)
def test_a_picture_has_words_and_a_formula(lesson):
    assert 2 <= len(re.findall(r"[.:;](?= |$)", lesson.words)) <= 9
    assert len(lesson.words) < 700
    assert lesson.formula


def assert_opens_alone(page: str) -> None:
    """Nothing on the page is fetched: whatever has an address is inside."""
    addresses = re.findall(r"""(?:src|href|action|data)=["']([^"']*)""", page)
    assert [a[:60] for a in addresses if not a.startswith("data:image/")] == []
    assert not re.search(r"@import|url\(|fetch\(|XMLHttpRequest|WebSocket|import\(|<link", page)


def test_named_pictures_are_drawn_onto_a_page_that_opens_alone(tmp_path, capsys):
    assert main(["pictures", *QUICK, "--out", str(tmp_path)]) == 0
    files = {path.name for path in tmp_path.iterdir()}
    assert files == {"gallery.html"} | {f"{name}.{end}" for name in QUICK for end in ("png", "svg")}
    assert capsys.readouterr().out.splitlines()[-1] == f"Gallery: {tmp_path / 'gallery.html'}"
    page = (tmp_path / "gallery.html").read_text()
    assert_opens_alone(page)
    assert page.count("data:image/png;base64,") == len(QUICK)
    assert "play-secant" in page and "play-step" in page


def test_the_page_holds_every_picture_and_each_slider():
    page = gallery([Shown(lesson, b"", b"", []) for lesson in LESSONS.values()])
    assert_opens_alone(page)
    assert all(f'<article id="{name}">' in page for name in LESSONS)
    assert page.count('<button role="tab"') == len({lesson.chapter for lesson in LESSONS.values()})
    for play in re.findall(r'"(play-[a-z]+)", ', page):
        assert f'id="{play}"' in page


NODE = shutil.which("node")


@pytest.mark.skipif(NODE is None, reason="node, which runs the page's script, is not installed")
def test_the_sliders_of_the_page_compute_what_jax_does(x64):
    script, stub = Path(pages.__file__).with_name("gallery.js"), Path(__file__).parent
    command = [str(NODE), str(stub / "page_stub.js"), str(script)]
    answers = json.loads(subprocess.run(command, capture_output=True, check=True, text=True).stdout)
    assert answers["firstChapter"] == [False, True]
    assert answers["secondChapter"] == [True, False]
    number = lambda text, before: float(
        re.search(before + r" (-?[\d.]+(?:e[+-]?\d+)?\d*)", text)[1]
    )

    x, h = derivative.POINT, 0.1
    found = (derivative.hill(x + h) - derivative.hill(x)) / h
    assert number(answers["secant"], "secant") == pytest.approx(float(found), abs=1e-4)
    slope = jax.grad(derivative.hill)(x)
    assert number(answers["secant"], "tangent") == pytest.approx(float(slope), abs=1e-4)

    value = lambda p: 0.5 * (p[0] ** 2 + 20 * p[1] ** 2)
    path = walk(optax.sgd(0.06, momentum=0.3), value, jnp.array([9.0, 1.0]), 60)
    left = float(np.linalg.norm(path[-1]))
    assert number(answers["descent"], "60 steps:") == pytest.approx(left, rel=1e-2)
    assert answers["redrawn"]
    assert "Too large" in answers["diverging"]


def test_an_unknown_picture_is_answered_with_the_nearest(tmp_path, capsys):
    assert main(["pictures", "secnt", "--out", str(tmp_path)]) == 2
    assert "secant" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_made_is_answered_in_a_sentence(tmp_path, capsys):
    occupied = tmp_path / "file"
    occupied.write_text("not a folder")
    assert main(["pictures", "secant", "--out", str(occupied)]) == 2
    assert str(occupied) in capsys.readouterr().err


@pytest.mark.slow
def test_the_whole_gallery_is_drawn(tmp_path):
    assert main(["pictures", "--out", str(tmp_path)]) == 0
    for name, lesson in LESSONS.items():
        ends = ("png", "svg", "gif") if lesson.animate else ("png", "svg")
        assert all((tmp_path / f"{name}.{end}").stat().st_size > 10_000 for end in ends)
    assert_opens_alone((tmp_path / "gallery.html").read_text())
