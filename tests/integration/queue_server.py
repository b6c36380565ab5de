"""A server that answers one request after the other, each after MILLISECONDS; it prints its port."""

from __future__ import annotations

import sys
import time
from http.server import BaseHTTPRequestHandler, HTTPServer


class OneAtATime(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        time.sleep(float(sys.argv[1]) / 1000)
        self.send_response(200)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"{}")

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


class Queue(HTTPServer):
    request_queue_size = 1024


server = Queue(("127.0.0.1", 0), OneAtATime)
print(server.server_port, flush=True)
server.serve_forever()
