"""The code on the pages runs: the blocks of a page, in order, in one namespace."""

import re
import sys
import types
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = [
    *("README.md", "CONTRIBUTING.md"),
    *(str(page.relative_to(ROOT)) for page in sorted(ROOT.glob("docs/**/*.md"))),
]

FENCE = re.compile(r"^( *)```python\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)
NEEDS = re.compile(r"^<!-- needs: (.+) -->$", re.MULTILINE)  # else it is skipped


def blocks_of(text: str) -> Iterator[str]:
    """The ```python blocks of a page, each moved to its line, so that tracebacks show the page."""
    for fence in FENCE.finditer(text):
        line = text.count("\n", 0, fence.start(2))
        indent, code = fence.groups()
        yield "\n" * line + re.sub(f"^{indent}", "", code, flags=re.MULTILINE)


def run_page(page: Path, module: types.ModuleType) -> int:
    """Run the blocks of a page in a module, and say how many there were."""
    blocks = list(blocks_of(page.read_text()))
    for block in blocks:
        exec(compile(block, page, "exec"), vars(module))
    return len(blocks)


@pytest.fixture
def module(tmp_path, monkeypatch):
    """An importable module, as classes defined on a page need, in an empty working folder."""
    monkeypatch.chdir(tmp_path)
    module = types.ModuleType("page")
    monkeypatch.setitem(sys.modules, "page", module)
    return module


@pytest.mark.programs(3000)  # a page is written to be read, op by op
@pytest.mark.parametrize("page", PAGES)
def test_the_code_on_the_page_runs(page, module):
    for packages in NEEDS.findall((ROOT / page).read_text()):
        for package in packages.split():
            pytest.importorskip(package)
    count = run_page(ROOT / page, module)
    assert count or page != "README.md", "README.md shows no code"


PAGE = """\
# Title

```python
x = 1
```

```sh
this is no Python
```

- an item

  ```python
  1 / (x - 1)
  ```
"""


def test_blocks_share_a_namespace_and_errors_name_the_line_of_the_page(tmp_path, module):
    page = tmp_path / "page.md"
    page.write_text(PAGE)
    with pytest.raises(ZeroDivisionError) as error:
        run_page(page, module)
    assert error.traceback[-1].lineno + 1 == PAGE[: PAGE.index("1 / (x")].count("\n") + 1


def test_a_page_is_skipped_without_a_package_that_it_needs(tmp_path, module):
    page = tmp_path / "page.md"
    page.write_text("# Title\n\n<!-- needs: jax no_such_package -->\n\n```python\n1 / 0\n```\n")
    with pytest.raises(pytest.skip.Exception, match="no_such_package"):
        test_the_code_on_the_page_runs(page, module)
