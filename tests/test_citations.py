"""BibTeX of the papers behind each method."""

import re

import pytest

import secondorder as so
from secondorder import methods
from secondorder.citations import OF_METHODS, entries


def test_every_method_has_papers_and_every_paper_a_method():
    assert set(OF_METHODS) == set(methods.__all__)
    assert {key for keys in OF_METHODS.values() for key in keys} == set(entries()) - {"secondorder"}


@pytest.mark.parametrize("name", OF_METHODS)
def test_the_papers_are_those_of_the_docstring(name):
    _, _, source = getattr(methods, name).__doc__.partition("Source:")
    cited = {int(re.search(r"year = {(\d+)}", entries()[key])[1]) for key in OF_METHODS[name]}
    assert {int(year) for year in re.findall(r"\((\d{4})\)", source)} <= cited


@pytest.mark.parametrize("name", OF_METHODS)
def test_an_entry_is_bibtex(name):
    text = so.citation(name)
    assert text.count("{") == text.count("}") and text == so.citation(getattr(so, name))
    found = text.split("\n\n")
    assert len(found) == len(OF_METHODS[name]) + 1
    for entry in found[:-1]:
        assert re.match(r"@[a-z]+\{[a-z]+\d{4},\n  author = \{.+\},\n  title = ", entry)


def test_an_unknown_method_gets_a_sentence():
    with pytest.raises(ValueError, match=r"citation got method='adam'; pass one of adahessian, "):
        so.citation("adam")
