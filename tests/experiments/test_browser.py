"""The report in a real browser: no complaint, every picture, parts that react, and no network."""

import pytest
from browser import BROWSER, WIDTHS, assert_well, browsing
from comparisons import finished, made, searched, written

pytestmark = pytest.mark.skipif(
    BROWSER is None, reason="no Chromium is installed (Debian: apt-get install chromium)"
)


@pytest.fixture
def opened(tmp_path):
    """Opens a page of the given content, or a file."""
    return lambda page: browsing(page, tmp_path / "profile")


def test_a_page_that_complains_or_fetches_is_found_out(tmp_path, opened):
    page = tmp_path / "bad.html"
    page.write_text(
        '<img src="data:image/png;base64,bm9uZQ=="><img src="http://nowhere.invalid/a.png">'
        '<script>console.error("one");\nnone.there;</script>'
    )
    with opened(page) as tab:
        assert tab.evaluate(WIDTHS) == [0, 0]
        assert "http://nowhere.invalid/a.png" in tab.requests
        said = " ".join(tab.errors)
    assert "one" in said
    assert "none is not defined" in said
    assert "Failed to load resource" in said


def test_the_report_opens_alone_and_its_tables_unfold(tmp_path, opened):
    runs = [made("newton", [1, 0.3, 0.1]), made("adam", [1, 0.9, 0.5])]
    written(tmp_path, finished(*runs, adam=searched({0.1: 2.0, 1.0: 0.5})))
    with opened(tmp_path / "report.html") as tab:
        assert_well(tab, pictures=2)
        height = lambda: tab.evaluate("document.querySelector('details').offsetHeight")
        folded = height()
        tab.evaluate("document.querySelector('summary').click()")
        assert height() > folded + 50
        assert tab.errors == []
