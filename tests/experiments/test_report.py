"""The report says the same as HTML, as Markdown and in tables, and keeps what it must not tell."""

import dataclasses
import html
import io
import json
import math
import platform
import re
from pathlib import Path

import pandas as pd
import pytest
from comparisons import PROBLEM, finished, made, searched, written
from PIL import Image, ImageColor

from experiments import provenance as machines
from experiments.compare.publish import light, publish
from experiments.optimizers import OPTIMIZERS
from experiments.report import (
    Heading,
    Illustration,
    Table,
    Verbatim,
    Verdict,
    Words,
    to_html,
    to_markdown,
)

PARTS = [
    Words("By `a < b` and **bold & true**"),
    Heading("One"),
    Verdict("To 1e-3", ["first wins."]),
    Table(pd.DataFrame([["x|y", "3", "<b>"]], columns=["name", "n", "end"]), "Costs", folded=True),
    Illustration("curve", "a curve", "What it is.", b"png"),
    Verbatim("1 < 2"),
]


def test_parts_become_html_with_everything_inside_and_escaped():
    page = to_html("A < B", PARTS)
    assert "<title>A &lt; B</title>" in page
    assert "<p>By <code>a &lt; b</code> and <b>bold &amp; true</b></p>" in page
    assert "<details><summary>Costs</summary>" in page
    assert re.search(r"<td>x\|y</td>\s*<td>3</td>\s*<td>&lt;b&gt;</td>", page)
    assert '<img alt="a curve" src="data:image/png;base64,cG5n">\n<figcaption>What it is.' in page
    assert "<pre>1 &lt; 2</pre>" in page


def test_the_same_parts_become_markdown_with_pictures_linked():
    assert to_markdown("A < B", PARTS).split("\n\n") == [
        "# A < B",
        "By `a < b` and **bold & true**",
        "## One",
        "**To 1e-3**",
        "* first wins.",
        "Costs:",
        "| name   |   n | end   |\n|:-------|----:|:------|\n| x\\|y   |   3 | <b>   |",
        "![a curve](figures/curve.png)",
        "What it is.",
        "```\n1 < 2\n```\n",
    ]


def test_the_published_page_shows_convergence_and_profiles_in_light_pictures(tmp_path):
    drawn = io.BytesIO()
    Image.effect_noise((2000, 100), 90).convert("RGB").save(drawn, "PNG")
    names = ("one-convergence", "one-curvature", "profiles")
    pictures = [Illustration(name, "", "", drawn.getvalue()) for name in names]
    (tmp_path / "images/comparison").mkdir(parents=True)
    (tmp_path / "images/comparison/earlier-convergence.png").write_bytes(b"png")
    page = publish([Words("before"), *pictures], tmp_path / "results")
    links = re.findall(r"\((.*?)\)", page.read_text())
    shown = [(page.parent / link).resolve() for link in links]
    assert [path.stem for path in shown] == ["one-convergence", "profiles"]
    assert set(shown) == set((tmp_path / "images/comparison").iterdir())
    for path in shown:
        with Image.open(path) as picture:
            assert picture.width == 1300
    assert all(path.stat().st_size < len(drawn.getvalue()) / 3 for path in shown)


def test_a_light_picture_keeps_the_colours_of_thin_lines():
    colours = [ImageColor.getrgb(each.look.colour) for each in OPTIMIZERS.values()]
    picture = Image.new("RGB", (1000, 20 * len(colours)), "white")
    for k, colour in enumerate(colours):
        for shade in range(30):  # as of antialiased edges
            blend = tuple(255 - (255 - c) * (shade + 1) // 30 for c in colour)
            picture.paste(blend, (20 * shade, 20 * k, 20 * shade + 20, 20 * k + 2))
    drawn = io.BytesIO()
    picture.save(drawn, "PNG")
    made = Image.open(io.BytesIO(light(drawn.getvalue()))).convert("RGB")
    for k, colour in enumerate(colours):
        shown = made.getpixel((590, 20 * k))
        assert shown == colour


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """What a comparison of made-up runs leaves."""
    folder = tmp_path_factory.mktemp("comparison")
    newton = made(
        "newton-cg", [1, 0.3, 0.1], price=9.0, gain=[math.nan, 1.0, 0.9], scale=[math.nan, 1, 2]
    )
    baselines = [made("adam", [1, 0.9, 0.5, 0.4]), made("lbfgs", [1, 0.9, 0.5, 0.2, 0.1])]
    search = searched({0.1: 2.0, 1.0: 0.5, 10.0: math.inf})
    written(folder, finished(newton, *baselines, adam=search), interrupted=True)
    return folder


def test_both_pages_hold_the_same_words_tables_and_pictures(folder):
    page, markdown = (folder / "report.html").read_text(), (folder / "report.md").read_text()
    pictures = re.findall(r"!\[.*\]\((.+)\)", markdown)
    assert {name.removeprefix("figures/rosenbrock-") for name in pictures} == {
        "convergence.png",
        "curvature.png",
        "sensitivity.png",
    }
    assert all((folder / name).stat().st_size > 10_000 for name in pictures)
    assert page.count("<img") == page.count('src="data:image/png') == len(pictures)
    page = html.unescape(page)
    headings = re.findall(r"<h2>(.+?)</h2>", page)
    assert headings == re.findall(r"^## (.+)$", markdown, re.MULTILINE)
    assert page.count("<tr") == sum(
        line.startswith("|") and "---" not in line for line in markdown.splitlines()
    )
    said = "The baseline L-BFGS (Optax) wins in gradient-equivalents (4)"
    for text in (page, markdown):
        assert "Newton-CG wins in steps (2)" in text
        assert said.replace("The", "the") in text
        assert "interrupted" in text
        assert "Budget for each, on each problem: 10 trials" in text
        assert machines.processor() in text


def test_the_costs_are_written_for_spreadsheets_pages_and_papers(folder):
    for name in ("summary.csv", "summary.tex"):
        text = (folder / name).read_text()
        assert all(optimizer in text for optimizer in ("Adam", "L-BFGS")) or name.endswith("csv")
    assert (folder / "summary.tex").read_text().count(r"\begin{table}") == len(PROBLEM.targets)
    assert (folder / "summary.tex").read_text().isascii()


def test_the_configuration_tells_the_machine_but_not_whose_it_is(folder):
    config = json.loads((folder / "config.json").read_text())
    assert {"processor", "cores", "system", "devices"} <= set(config["machine"])
    assert int(config["machine"]["cores"]) >= 1
    assert re.fullmatch(r"\d+ GiB", config["machine"].get("memory", "1 GiB"))
    told = json.dumps(config["machine"])
    assert str(Path.cwd()) not in told
    assert len(platform.node()) < 4 or platform.node() not in told
    assert config["interrupted"] is True
    assert config["problems"]["rosenbrock"]["optimum"] == 0.0


def test_a_processor_without_a_listing_has_the_name_that_python_knows(tmp_path, monkeypatch):
    listing = tmp_path / "cpuinfo"
    monkeypatch.setattr(machines, "PROCESSORS", listing)
    assert machines.processor() == (platform.processor() or platform.machine())
    listing.write_text("processor\t: 0\nmodel name\t: Abacus: 2 beads\n")
    assert machines.processor() == "Abacus: 2 beads"


def test_a_problem_without_a_search_or_diagnostics_has_no_empty_figure(tmp_path):
    loss = dataclasses.replace(PROBLEM, measure="loss")
    written(tmp_path, finished(made("newton", [1, 0.1]), problem=loss))
    assert {path.name for path in (tmp_path / "figures").iterdir()} == {
        "rosenbrock-convergence.png",
        "rosenbrock-convergence.svg",
    }


def test_figures_of_an_earlier_comparison_go_and_other_files_stay(tmp_path):
    runs = made("newton", [1, 0.1], gain=[math.nan, 1.0]), made("adam", [1, 0.4])
    loss = dataclasses.replace(PROBLEM, measure="loss")
    written(tmp_path, finished(*runs, problem=loss, adam=searched({0.1: 0.4, 1.0: 2.0})))
    figures, before = tmp_path / "figures", {"rosenbrock-convergence.png"}
    before |= {f"rosenbrock-{kind}.svg" for kind in ("curvature", "sensitivity")}
    assert before <= {path.name for path in figures.iterdir()}
    for name in ("logistic-convergence.png", "profiles.svg", "mine.png", "rosenbrock.png"):
        (figures / name).write_bytes(b"")
    written(tmp_path, finished(made("newton", [1, 0.1]), problem=loss))
    assert {path.name for path in figures.iterdir()} == {
        "rosenbrock-convergence.png",
        "rosenbrock-convergence.svg",
        "mine.png",
        "rosenbrock.png",
    }
