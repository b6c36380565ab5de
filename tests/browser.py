"""A headless Chromium that is spoken to by its DevTools protocol, over a pipe: pages as a user sees them."""

from __future__ import annotations

import base64
import json
import os
import select
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
_ANSWER_S = 60.0
# Whatever is wider than its box and neither scrolls nor is scrolled within.
STICKING_OUT = """
[...document.querySelectorAll("main *")].filter(function (element) {
  if (element.closest(".figure") || element.closest(".scroll")) return false;
  var box = element.getBoundingClientRect();
  return box.right > document.documentElement.clientWidth + 0.5 || box.left < -0.5;
}).map(function (element) { return element.tagName + " " + element.className; })
"""
# Texts of a figure that end outside it.
CUT_OFF = """
[...document.querySelectorAll(".figure")].flatMap(function (figure) {
  var frame = figure.getBoundingClientRect();
  return [...figure.querySelectorAll("svg text")].filter(function (text) {
    var box = text.getBoundingClientRect();
    var aside = box.left < frame.left - 1.5 || box.right > frame.right + 1.5;
    return box.width && (aside || box.bottom > frame.bottom + 1.5);
  }).map(function (text) { return text.textContent; });
})
"""


@dataclass(slots=True, kw_only=True)
class Page:
    """One tab; what it asked the network for, and what it complained of, since it was opened last."""

    write_fd: int
    read_fd: int
    session: str = ""
    asked: list[str] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)
    loaded: bool = False
    _last: int = 0
    _unread: bytes = b""

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        """Make one call and return its result."""
        self._last += 1
        message: dict[str, Any] = {"id": self._last, "method": method, "params": params}
        if self.session:
            message["sessionId"] = self.session
        os.write(self.write_fd, json.dumps(message).encode() + b"\0")
        while (said := self._next()).get("id") != self._last:
            self._note(said)
        assert "error" not in said, said
        result: dict[str, Any] = said["result"]
        return result

    def open(self, path: Path, *, width: int, scheme: str) -> None:
        """Open a file at this width, light or dark, and wait until it has loaded."""
        self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=width < 500
        )
        self.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        self.asked.clear()
        self.complaints.clear()
        self.loaded = False
        self.call("Page.navigate", url=path.resolve().as_uri())
        while not self.loaded:
            self._note(self._next())

    def value(self, expression: str) -> Any:
        """Return what JavaScript makes of an expression."""
        told = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in told, told
        return told["result"].get("value")

    def picture(self) -> bytes:
        """Return a PNG of what is seen."""
        return base64.b64decode(self.call("Page.captureScreenshot", format="png")["data"])

    def _next(self) -> dict[str, Any]:
        end_s = time.monotonic() + _ANSWER_S
        while b"\0" not in self._unread:
            ready, _, _ = select.select([self.read_fd], [], [], max(end_s - time.monotonic(), 0))
            assert ready, f"Chromium said nothing for {_ANSWER_S:g} s"
            chunk = os.read(self.read_fd, 2**20)
            assert chunk, "Chromium ended"
            self._unread += chunk
        line, _, self._unread = self._unread.partition(b"\0")
        said: dict[str, Any] = json.loads(line)
        return said

    def _note(self, said: dict[str, Any]) -> None:
        method, params = said.get("method"), said.get("params", {})
        if method == "Network.requestWillBeSent":
            self.asked.append(params["request"]["url"])
        elif method in ("Runtime.exceptionThrown", "Log.entryAdded"):
            self.complaints.append(json.dumps(params)[:500])
        elif method == "Page.loadEventFired":
            self.loaded = True


@contextmanager
def browser(folder: Path) -> Iterator[Page]:
    """Run Chromium with a profile in `folder`, and give its one tab."""
    assert CHROMIUM, "no Chromium here: apt-get install chromium"
    theirs_in, ours_out = os.pipe()
    ours_in, theirs_out = os.pipe()
    options = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
               "--remote-debugging-pipe", f"--user-data-dir={folder}", "about:blank"]  # fmt: skip
    # Chromium reads commands from descriptor 3 and answers on 4; dash knows no descriptor beyond 9.
    command = ["bash", "-c", f'exec "$@" 3<&{theirs_in} 4>&{theirs_out}', "bash", CHROMIUM, *options]
    process = subprocess.Popen(
        command, pass_fds=(theirs_in, theirs_out), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )  # fmt: skip
    os.close(theirs_in)
    os.close(theirs_out)
    page = Page(write_fd=ours_out, read_fd=ours_in)
    try:
        target = page.call("Target.createTarget", url="about:blank")["targetId"]
        page.session = page.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Network", "Runtime", "Log"):
            page.call(f"{domain}.enable")
        yield page
    finally:
        os.close(ours_out)  # it ends when its pipe does
        os.close(ours_in)
        try:
            process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
