"""A headless Chromium, driven by its DevTools protocol through a pair of pipes.

JSON messages that end in NUL go in through its descriptor 3 and come out of its descriptor 4
(``--remote-debugging-pipe``), so neither a port nor a client library is needed.
"""

import fcntl
import itertools
import json
import os
import select
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
BROWSER = next((found for name in NAMES if (found := shutil.which(name))), None)
FLAGS = """--headless --no-sandbox --disable-gpu --disable-quic --disable-dev-shm-usage
--no-first-run --disable-background-networking --disable-component-update --disable-sync
--remote-debugging-pipe"""
PATIENCE = 60.0  # seconds for one answer; the start takes about one, the rest some milliseconds
COMPLAINTS = ("assert", "error", "warning")


class Tab:
    """One open page, and what a reader's console and network panel would show of it."""

    def __init__(self, incoming: int, outgoing: int):
        self.incoming, self.outgoing, self.pending = incoming, outgoing, b""
        self.numbers, self.session, self.loaded = itertools.count(1), None, False
        self.errors: list[str] = []
        self.requests: list[str] = []

    def open(self, page: Path) -> None:
        """Loads a file and waits until all that the page asks for is there."""
        self.session, self.loaded = None, False
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        attached = self.call("Target.attachToTarget", targetId=target, flatten=True)
        self.session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")
        self.call("Page.navigate", url=page.resolve().as_uri())
        while not self.loaded:
            self._receive()

    def evaluate(self, expression: str) -> Any:
        """The value of a JavaScript expression on the page, or what its promise comes to."""
        settings = {"returnByValue": True, "awaitPromise": True}
        answer = self.call("Runtime.evaluate", expression=expression, **settings)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        message = {"id": next(self.numbers), "method": method, "params": params}
        session = {"sessionId": self.session} if self.session else {}
        os.write(self.outgoing, json.dumps(message | session).encode() + b"\0")
        while (answer := self._receive()).get("id") != message["id"]:
            pass
        assert "error" not in answer, f"{method}: {answer.get('error')}"
        return answer["result"]

    def _receive(self) -> dict[str, Any]:
        until = time.monotonic() + PATIENCE
        while b"\0" not in self.pending:
            ready, _, _ = select.select([self.incoming], [], [], max(until - time.monotonic(), 0))
            assert ready, "the browser does not answer"
            piece = os.read(self.incoming, 1 << 20)
            assert piece, "the browser has ended"
            self.pending += piece
        line, self.pending = self.pending.split(b"\0", 1)
        message = json.loads(line)
        self._notice(message.get("method"), message.get("params", {}))
        return message

    def _notice(self, event: str | None, about: dict[str, Any]) -> None:
        if event == "Page.loadEventFired":
            self.loaded = True
        elif event == "Network.requestWillBeSent":
            self.requests.append(about["request"]["url"])
        elif event == "Runtime.exceptionThrown":
            self.errors.append(json.dumps(about["exceptionDetails"]))
        elif event == "Runtime.consoleAPICalled" and about["type"] in COMPLAINTS:
            self.errors.append(json.dumps(about["args"]))
        elif event == "Log.entryAdded" and about["entry"]["level"] in COMPLAINTS:
            self.errors.append(about["entry"]["text"])


@contextmanager
def browsing(page: Path, profile: Path) -> Iterator[Tab]:
    """The page in a browser of its own, which is gone at the end, whatever happens."""
    its_input, outgoing = os.pipe()
    incoming, its_output = os.pipe()
    # Far above 3 and 4, so that neither redirection overwrites what the other needs.
    its_ends = [fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, 10) for end in (its_input, its_output)]
    command = 'exec "$0" "$@" 3</dev/fd/{} 4>/dev/fd/{}'.format(*its_ends)
    process = subprocess.Popen(
        ["sh", "-c", command, str(BROWSER), *FLAGS.split(), f"--user-data-dir={profile}"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        pass_fds=its_ends,
        start_new_session=True,
    )
    for end in (*its_ends, its_input, its_output):
        os.close(end)
    try:
        tab = Tab(incoming, outgoing)
        tab.open(page)
        yield tab
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        os.close(incoming)
        os.close(outgoing)


WIDTHS = "[...document.images].map((image) => image.naturalWidth)"


def assert_well(tab, pictures: int) -> None:
    """All pictures are there, nothing was complained of, and nothing came from elsewhere."""
    widths = tab.evaluate(WIDTHS)
    assert len(widths) == pictures
    assert min(widths) > 0
    assert tab.errors == []
    assert [url[:80] for url in tab.requests if not url.startswith(("file:", "data:"))] == []
