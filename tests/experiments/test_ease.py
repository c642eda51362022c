"""The six tasks with peers: the page's table counts what the page shows."""

import re

from experiments.ease import PAGE, Snippet, measure, snippets

ROW = re.compile(r"^\| ([A-Z][^|]+?) \| (\w+) \| (\d+) \|", re.MULTILINE)


def test_the_table_of_the_page_counts_the_lines_of_its_snippets():
    text = PAGE.read_text()
    shown = [(one.task, one.library, str(one.lines)) for one in snippets(text)]
    assert ROW.findall(text) == shown
    tasks = {task for task, _, _ in shown}
    assert len(tasks) == 6
    for task in tasks:
        libraries = {library for of, library, _ in shown if of == task}
        assert "secondorder" in libraries and len(libraries) >= 2


def test_imports_comments_and_checks_are_no_lines():
    code = '# Peer\nimport x\n\ny = f(\n    1\n)\nprint(y)\nprint(f"{y}")\nassert y\n'
    assert Snippet("a task", "Peer", "", code).lines == 4


def test_the_seconds_are_those_of_the_snippet_without_its_data():
    slow = "import jax, time\ntime.sleep(3)\n"
    assert 0 <= measure(Snippet("a task", "Peer", slow, "x = 1\n")) < 3
