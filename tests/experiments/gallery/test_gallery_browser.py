"""The gallery in a real browser: every picture and tab, sliders that react, and no network."""

import base64

import pytest
from browser import BROWSER, assert_well, browsing

from experiments.command_line import main
from experiments.gallery import LESSONS
from experiments.gallery.page import Shown, gallery

pytestmark = pytest.mark.skipif(
    BROWSER is None, reason="no Chromium is installed (Debian: apt-get install chromium)"
)

DOT = base64.b64decode("R0lGODlhAQABAIAAAAAAAAAAACH5BAAAAAAALAAAAAABAAEAAAICRAEAOw==")  # 1 x 1


@pytest.fixture
def opened(tmp_path):
    """Opens a page of the given content, or a file."""
    return lambda page: browsing(page, tmp_path / "profile")


def move(tab, slider: str, value: float) -> None:
    """What a reader's hand does to a slider."""
    tab.evaluate(
        f"{{ const slider = document.querySelector({slider!r}); slider.value = {value};"
        ' slider.dispatchEvent(new Event("input", {bubbles: true})); }'
    )


def shown(tab, selector: str, what: str = "textContent") -> str:
    return tab.evaluate(f"document.querySelector({selector!r}).{what}")


def test_drawn_pictures_are_on_the_page_and_its_sliders_react(tmp_path, opened):
    assert main(["pictures", "secant", "step-size", "--out", str(tmp_path)]) == 0
    with opened(tmp_path / "gallery.html") as tab:
        assert_well(tab, pictures=2)
        move(tab, "#play-secant input", -1)
        assert shown(tab, "#play-secant output") == "0.1000"
        near = shown(tab, "#play-secant p")
        drawn = shown(tab, "#play-secant svg", "innerHTML")
        move(tab, "#play-secant input", -2)
        assert shown(tab, "#play-secant p") != near
        assert shown(tab, "#play-secant svg", "innerHTML") != drawn

        move(tab, '#play-step input[name="rate"]', 0.05)
        assert "Stable" in shown(tab, "#play-step p")
        move(tab, '#play-step input[name="rate"]', 0.11)
        assert shown(tab, '#play-step output[data-for="rate"]') == "0.110"
        assert "Too large" in shown(tab, "#play-step p")
        move(tab, '#play-step input[name="momentum"]', 0.5)
        assert "Stable" in shown(tab, "#play-step p")
        assert tab.errors == []


def test_each_tab_of_the_whole_page_shows_its_chapter_alone(tmp_path, opened):
    lessons = [
        Shown(lesson, DOT, None if lesson.animate is None else DOT, [])
        for lesson in LESSONS.values()
    ]
    page = tmp_path / "gallery.html"
    page.write_text(gallery(lessons))
    chapters = list(dict.fromkeys(one.lesson.chapter for one in lessons))
    visible = "[...document.querySelectorAll('h2')].filter((x) => x.offsetParent)"
    with opened(page) as tab:
        assert_well(tab, pictures=len(lessons) + sum(one.gif is not None for one in lessons))
        for i, chapter in enumerate(chapters):
            tab.evaluate(f"document.getElementById('tab-{i}').click()")
            assert tab.evaluate(f"{visible}.map((x) => x.textContent)") == [chapter]
        key = "new KeyboardEvent('keydown', {key: 'ArrowRight', bubbles: true})"
        tab.evaluate(f"document.getElementById('tab-{len(chapters) - 1}').dispatchEvent({key})")
        assert tab.evaluate(f"{visible}.map((x) => x.textContent)") == [chapters[0]]
        assert tab.evaluate("document.activeElement.id") == "tab-0"
        assert tab.errors == []
