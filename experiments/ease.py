"""The tasks of docs/results/ease.md: lines of each snippet, and seconds until its first result.

``python -m experiments.ease`` runs each snippet in a process of its own, after the data of its
task, and prints the table of the page. The imports of its libraries and every compilation count.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

PAGE = Path(__file__).parents[1] / "docs" / "results" / "ease.md"
PART = re.compile(r"^## \d+\. (.+?)$|^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LIBRARY = re.compile(r"# ([A-Z]\w+|lmfit|secondorder)\b")


class Snippet(NamedTuple):
    """A task in a library.

    Attributes:
      task: the heading.
      library: the first word of the snippet's comment.
      data: the blocks before, shared by all libraries.
      code: the snippet.
    """

    task: str
    library: str
    data: str
    code: str

    @property
    def lines(self) -> int:
        """Lines of code without imports, comments and checks."""
        aside = ("#", "import ", "from ", "assert ", 'print(f"')
        written = [line.strip() for line in self.code.splitlines()]
        return sum(bool(line) and not line.startswith(aside) for line in written)


def snippets(text: str) -> Iterator[Snippet]:
    """The snippets of the page, in its order."""
    task, data = "", ""
    for heading, code in PART.findall(text):
        if heading:
            task = heading
        elif name := LIBRARY.match(code):
            yield Snippet(task, name[1], data, code)
        elif task:
            data += code


def measure(snippet: Snippet) -> float:
    """Seconds of the snippet in a fresh process, without those of its data."""
    timed = "\nimport time as clock\nbegun = clock.perf_counter()\n"
    end = "\njax.effects_barrier()\nprint('seconds', clock.perf_counter() - begun)\n"
    code = snippet.data + timed + snippet.code + end
    run = subprocess.run(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, check=True
    )
    return float(run.stdout.split()[-1])


def main() -> None:
    found = [(one, min(measure(one) for _ in range(2))) for one in snippets(PAGE.read_text())]
    least: dict[str, float] = {}
    for one, seconds in found:
        least[one.task] = min(seconds, least.get(one.task, seconds))
    print("| task | library | lines | seconds | ratio |\n|---|---|---|---|---|")
    for one, seconds in found:
        ratio = seconds / least[one.task]
        print(f"| {one.task} | {one.library} | {one.lines} | {seconds:.2f} | {ratio:.1f} |")


if __name__ == "__main__":
    main()
