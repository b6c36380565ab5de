"""Servers of a known latency, and images to post to them."""

from __future__ import annotations

import contextlib
import json
import random
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

SERVER = Path(__file__).parent / "integration" / "slow_server.py"


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    url: str
    process: subprocess.Popen[str]
    seen: Path

    def stop(self) -> list[tuple[float, int]]:
        """End the server and return milliseconds and status of each request it answered."""
        self.process.terminate()
        self.process.wait(timeout=10)
        rows = (line.split() for line in self.seen.read_text(encoding="utf-8").splitlines())
        return [(float(duration), int(status)) for duration, status in rows]


@contextlib.contextmanager
def slow_server(folder: Path, **config: int) -> Iterator[Server]:
    seen = folder / "seen"
    command = [sys.executable, str(SERVER), json.dumps(config), str(seen)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        url = f"http://127.0.0.1:{process.stdout.readline().strip()}/serve/people/4"
        try:
            yield Server(url=url, process=process, seen=seen)
        finally:
            process.kill()


def noise_images(folder: Path) -> Path:
    """A small one and one of 300 KB, noise so that they keep their size."""
    noise = random.Random(7).randbytes
    for name, width in (("a.jpg", 200), ("b.png", 320)):
        Image.frombytes("RGB", (width, width), noise(width * width * 3)).save(folder / name)
    return folder
