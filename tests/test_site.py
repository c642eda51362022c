"""The built pages fetch nothing, fit a narrow screen, and complain of nothing."""

import re
from pathlib import Path

import pytest
from browser import BROWSER, browsing

SITE = Path(__file__).parents[1] / "site"
RESOURCE = re.compile(r"<(?:script|img|iframe|link)\b[^>]*?\b(?:src|href)=\"(?:https?:)?//[^>]*>")
PAGES = """index.html start/which.html explain/diagnostics.html explain/methods.html
reference/index.html reference/kfac.html reference/Fit-class.html results/networks.html
results/comparison.html studies/fit.html start/fit.html design.html""".split()

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not SITE.exists(), reason="`make docs` has not built site/"),
]


def test_no_page_refers_to_a_resource_on_a_network():
    pages = sorted(SITE.glob("**/*.html"))
    assert len(pages) > 200
    for page in pages:
        assert RESOURCE.findall(page.read_text()) == [], page


def test_an_address_of_a_resource_is_found():
    assert RESOURCE.search('<link rel="stylesheet" href="https://fonts.example/a.css">')
    assert RESOURCE.search('<script async src="//cdn.example/a.js"></script>')
    assert not RESOURCE.search('<img src="images/a.png"><a href="https://docs.example">')


MAIN = "document.querySelector('.md-main').scrollWidth"
OUTSIDE = """[...document.querySelectorAll('article table, article img, article pre')].filter(
    (thing) => {
        const scrolls = thing.closest('.md-typeset__scrollwrap, pre, .highlight');
        return thing.getBoundingClientRect().right > innerWidth + 1 && !scrolls;
    }).map((thing) => thing.outerHTML.slice(0, 80))"""


@pytest.mark.skipif(BROWSER is None, reason="no Chromium is installed")
@pytest.mark.parametrize("width", [1300, 400])
def test_the_pages_fit_the_screen_and_ask_for_nothing(width, tmp_path):
    with browsing(SITE / PAGES[0], tmp_path) as tab:
        for page in PAGES:
            tab.open(SITE / page)
            tab.call(
                "Emulation.setDeviceMetricsOverride",
                width=width,
                height=1000,
                deviceScaleFactor=1,
                mobile=False,
            )
            assert tab.evaluate(MAIN) <= width, page
            assert tab.evaluate(OUTSIDE) == [], page
        assert tab.errors == []
        strangers = [url for url in tab.requests if not url.startswith(("file:", "data:"))]
        assert strangers == []


SEARCH = """new Promise((found) => {
    document.querySelector('#__search').click();
    const query = document.querySelector('[data-md-component=search-query]');
    query.focus();
    query.value = 'kfac';
    query.dispatchEvent(new Event('keyup'));
    const look = () => {
        const links = document.querySelectorAll('.md-search-result__link');
        links.length ? found(links.length) : setTimeout(look, 50);
    };
    look();
})"""


@pytest.mark.skipif(BROWSER is None, reason="no Chromium is installed")
def test_the_search_works_without_a_server(tmp_path):
    with browsing(SITE / "index.html", tmp_path) as tab:
        assert tab.evaluate(SEARCH) > 0
        assert tab.errors == []
