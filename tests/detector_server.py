"""A small HTTP server that answers as an endpoint does, in threads of the test's own process.

One box a picture, as large as its middle half, of the class and score a test can foresee. It counts connections
and requests, and can refuse, break off or wait where a test says so.
"""

from __future__ import annotations

import contextlib
import io
import json
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from PIL import Image


@dataclass(slots=True, kw_only=True)
class Detector:
    """What the server does and has seen."""

    url: str = ""
    delay_s: float = 0.0
    gone_after: int = 10**9  # requests answered before all others get 503
    hang_after: int = 10**9  # requests answered before all others wait
    drop_every: int = 10**9  # every so manyth answer ends its connection without saying so
    connections: int = 0
    requests: int = 0
    most_at_once: int = 0
    at_once: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)
    closing: threading.Event = field(default_factory=threading.Event)


@contextlib.contextmanager
def detector_server(**behaviour: Any) -> Iterator[Detector]:
    """Run a server for the block."""
    detector = Detector(**behaviour)

    class Endpoint(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True  # its head and body are two packets

        def setup(self) -> None:
            super().setup()
            with detector.lock:
                detector.connections += 1

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            with detector.lock:
                number, detector.requests = detector.requests, detector.requests + 1
                detector.at_once += 1
                detector.most_at_once = max(detector.most_at_once, detector.at_once)
            if number >= detector.hang_after:
                detector.closing.wait(60)
            time.sleep(detector.delay_s)
            status, document = (503, {"detail": "gone"}) if number >= detector.gone_after else _answer(body)
            with detector.lock:
                detector.at_once -= 1
            text = json.dumps(document).encode()
            with contextlib.suppress(OSError):  # who asked may have gone
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text)
            if number % detector.drop_every == detector.drop_every - 1:
                self.close_connection = True

        def log_message(self, *_: Any) -> None:
            """Tests read stderr."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Endpoint)
    server.daemon_threads = True
    server.block_on_close = False
    detector.url = f"http://127.0.0.1:{server.server_address[1]}/serve/street"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield detector
    finally:
        detector.closing.set()
        server.shutdown()
        thread.join()
        server.server_close()


def _answer(body: bytes) -> tuple[int, dict[str, Any]]:
    try:
        with Image.open(io.BytesIO(body)) as image:
            width, height = image.size
    except OSError:
        return 422, {"detail": "the body is no image"}
    box = [width / 4, height / 4, width * 3 / 4, height * 3 / 4]
    # The class goes by the width, so that a test can tell one picture's answer from another's.
    predictions = [
        {"bbox": box, "score": 0.75, "raw_score": 2.5, "class_id": width % 3, "label": f"class {width % 3}"},
        {"bbox": [0, 0, 4, 4], "score": 0.25, "raw_score": 0.5, "class_id": 0, "label": "class 0"},
    ]
    return 200, {
        "image": {"width": width, "height": height},
        "model": {"endpoint": "street", "version": "3", "id": "abc"},
        "bbox_format": "xyxy",
        "predictions": predictions,
        "timing_ms": {"preprocess": 1.0, "infer": 2.0, "postprocess": 0.5, "total": 3.5},
    }
