"""The rendered nginx.conf in a real nginx, before an upstream that records what reaches it."""

from __future__ import annotations

import contextlib
import gzip
import http.client
import http.server
import os
import secrets
import shutil
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tao2serve.render.compose import compose_files
from tao2serve.render.files import write_files
from tao2serve.render.images import release_of
from tao2serve.render.request import ClearMLAddresses, ProxyPlaces, RenderRequest, default_body
from tao2serve.render.templates import proxy_conf
from tao2serve.sandbox.health import free_ports

NGINX = shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
pytestmark = [
    pytest.mark.integration,
    # CI has it (.ci/run): there, a missing one is a failure.
    pytest.mark.skipif(NGINX is None and not os.environ.get("CI"), reason="no nginx here: apt-get install nginx"),
]
LARGEST = default_body(32 * 1024 * 1024)
CAMERA, PHONE, OLD = (secrets.token_hex(32) for _ in range(3))
SHORT = secrets.token_hex(15)
PATH = "/serve/people/3"


@dataclass(slots=True)
class Seen:
    """One request as the upstream got it."""

    line: str
    headers: list[tuple[str, str]]
    body_bytes: int


@dataclass(slots=True)
class Proxy:
    port: int
    folder: Path
    process: subprocess.Popen[bytes]
    seen: list[Seen] = field(default_factory=list)

    @property
    def output(self) -> str:
        return (self.folder / "output").read_text(encoding="utf-8")

    def connect(self) -> http.client.HTTPSConnection:
        trusted = ssl.create_default_context(cafile=str(self.folder / "secrets" / "tls.crt"))
        return http.client.HTTPSConnection("localhost", self.port, timeout=10, context=trusted)

    def ask(
        self, path: str = PATH, *, method: str = "POST", key: str = "", body: bytes = b"x", **headers: str
    ) -> tuple[int, bytes, http.client.HTTPMessage]:
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        if key:
            sent["Authorization"] = f"Bearer {key}"
        with contextlib.closing(self.connect()) as connection:
            connection.request(method, path, body=body, headers=sent)
            response = connection.getresponse()
            return response.status, response.read(), response.headers

    def raw(self, request: bytes) -> bytes:
        """Send bytes as they are, which http.client would refuse to; returns the beginning of the answer."""
        trusted = ssl.create_default_context(cafile=str(self.folder / "secrets" / "tls.crt"))
        with (
            socket.create_connection(("localhost", self.port), timeout=10) as plain,
            trusted.wrap_socket(plain, server_hostname="localhost") as connection,
        ):
            connection.sendall(request)
            return connection.recv(65536)


def _upstream(seen: list[Seen], gate: threading.Event) -> http.server.ThreadingHTTPServer:
    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self._answer(b'{"openapi":"secret inner things"}')

        def do_POST(self) -> None:
            length = int(self.headers.get("Content-Length", 0))
            self.rfile.read(length)
            seen.append(Seen(line=self.requestline, headers=list(self.headers.items()), body_bytes=length))
            if "slow" in self.path:
                gate.wait(10)
            self._answer(b'{"predictions":[]}')

        def _answer(self, body: bytes) -> None:
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None: ...

    return http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)


def _write_keys(folder: Path, *lines: tuple[str, str]) -> None:
    text = "".join(f'"{key}" {name};\n' for key, name in (*lines, ("", "nobody"), (SHORT, "short")))
    (folder / "api-keys.map").write_text(text, encoding="utf-8")
    (folder / "api-keys.map").chmod(0o600)


def _request(**options: int) -> RenderRequest:
    given = {"requests_per_s": 1000, "connections": 64, **options}
    return RenderRequest(
        release=release_of("25.01"),
        version="0.1.0",
        clearml=ClearMLAddresses(),
        max_body_bytes=LARGEST,
        deadline_s=10.0,
        **given,  # type: ignore[arg-type]
    )


@pytest.fixture(scope="module")
def gate() -> threading.Event:
    """Lets go the requests that the upstream holds."""
    return threading.Event()


@contextlib.contextmanager
def running(folder: Path, gate: threading.Event, *, resolver: str = "", **options: int) -> Iterator[Proxy]:
    """Start nginx on a configuration as it is rendered, in a folder of its own."""
    assert NGINX is not None, "no nginx"
    folder.mkdir(exist_ok=True)
    seen: list[Seen] = []
    upstream = _upstream(seen, gate)
    thread = threading.Thread(target=upstream.serve_forever, daemon=True)
    thread.start()
    (port,) = free_ports(1)
    _write_keys(folder, (CAMERA, "camera-1"), (PHONE, "phone"))
    write_files(compose_files(_request(**options)), folder)
    subprocess.run(["sh", "self-signed.sh"], cwd=folder, check=True, capture_output=True)
    places = ProxyPlaces(
        listen=f"127.0.0.1:{port}",
        inference=f"127.0.0.1:{upstream.server_port}",
        keys=str(folder / "api-keys.map"),
        certificate=str(folder / "secrets" / "tls.crt"),
        certificate_key=str(folder / "secrets" / "tls.key"),
        writable=str(folder),
        resolver=resolver,
    )
    conf = folder / "nginx.conf"
    conf.write_text(proxy_conf(_request(**options), places), encoding="utf-8")
    # In its image all of nginx is one user; a worker of another could not write into a test's folder.
    options_of_process = "daemon off;" + (" user root;" if os.geteuid() == 0 else "")
    with (folder / "output").open("ab") as output:
        process = subprocess.Popen(
            [NGINX, "-c", str(conf), "-p", str(folder), "-e", "/dev/stderr", "-g", options_of_process],
            stdout=output,
            stderr=output,
        )
    proxy = Proxy(port=port, folder=folder, process=process, seen=seen)
    try:
        _wait_until_live(proxy)
        yield proxy
    finally:
        gate.set()
        process.terminate()
        process.wait(10)
        upstream.shutdown()
        upstream.server_close()
        thread.join(10)


def _wait_until_live(proxy: Proxy) -> None:
    deadline = time.monotonic() + 10
    while True:
        try:
            if proxy.ask("/healthz", method="GET", body=b"")[0] == 200:
                return
        except OSError:
            pass
        assert proxy.process.poll() is None, proxy.output
        assert time.monotonic() < deadline, proxy.output
        time.sleep(0.02)


@pytest.fixture(scope="module")
def proxy(tmp_path_factory: pytest.TempPathFactory, gate: threading.Event) -> Iterator[Proxy]:
    """As Kubernetes has it: the inference service's name is looked up once."""
    with running(tmp_path_factory.mktemp("proxy"), gate) as started:
        yield started


def test_only_a_right_key_passes(proxy: Proxy) -> None:
    """No key and a wrong key are 401 and reach nothing; each of several keys is 200, by either header.

    The file also has a line with an empty key, as a failed command leaves it, and one with a short one: nobody's.
    """
    before = len(proxy.seen)
    status, body, headers = proxy.ask()
    assert (status, headers["WWW-Authenticate"]) == (401, "Bearer")
    assert b"API key" in body
    wrong = (
        secrets.token_hex(32),
        CAMERA[:-1],
        CAMERA + "0",
        "",
        SHORT,
        "default",
        "include",
        f"{CAMERA} {CAMERA}",
        "~.*",
    )
    for key in wrong:
        assert proxy.ask(Authorization=f"Bearer {key}")[0] == 401, key
        assert proxy.ask(X_API_Key=key or " ")[0] == 401, key
    assert proxy.ask(Authorization=CAMERA)[0] == 401
    assert proxy.ask(Authorization=f"Basic {CAMERA}")[0] == 401
    assert len(proxy.seen) == before
    for key in (CAMERA, PHONE):
        assert proxy.ask(key=key)[0] == 200
        assert proxy.ask(X_API_Key=key)[0] == 200
    assert len(proxy.seen) == before + 4


def test_a_large_body_is_413_and_the_largest_image_passes(proxy: Proxy) -> None:
    """50 MB are refused, announced or in pieces, before the upstream hears of them; a 32 MiB image in base64 passes."""
    before = len(proxy.seen)
    with contextlib.closing(proxy.connect()) as connection:
        connection.putrequest("POST", PATH)
        connection.putheader("Authorization", f"Bearer {CAMERA}")
        connection.putheader("Content-Length", "50000000")
        connection.endheaders()
        refused = connection.getresponse()
        assert refused.status == 413
        assert str(LARGEST).encode() in refused.read()
    with contextlib.closing(proxy.connect()) as connection:
        connection.putrequest("POST", PATH)
        connection.putheader("Authorization", f"Bearer {CAMERA}")
        connection.putheader("Transfer-Encoding", "chunked")
        connection.endheaders()
        piece = b"%x\r\n" % 1_000_000 + bytes(1_000_000) + b"\r\n"
        with contextlib.suppress(OSError):  # it stops listening once it has seen enough
            for _ in range(50):
                connection.send(piece)
            connection.send(b"0\r\n\r\n")
        assert connection.getresponse().status == 413
    assert len(proxy.seen) == before
    image = 32 * 1024 * 1024 * 4 // 3 + 100
    assert proxy.ask(key=CAMERA, body=bytes(image))[0] == 200
    assert proxy.seen[-1].body_bytes == image


def test_packed_bodies_are_refused(proxy: Proxy) -> None:
    """A Content-Encoding is 415; where nginx sees only the first of two, the upstream gets neither."""
    before = len(proxy.seen)
    packed = gzip.compress(bytes(1_000_000))
    for encoding in ("gzip", "GZIP", "deflate", "br", "gzip, gzip", "identity, gzip"):
        assert proxy.ask(key=CAMERA, body=packed, Content_Encoding=encoding)[0] == 415
    assert len(proxy.seen) == before
    answer = proxy.raw(
        f"POST {PATH} HTTP/1.1\r\nHost: localhost\r\nX-API-Key: {CAMERA}\r\nConnection: close\r\nContent-Length: 1\r\n"
        "Content-Encoding: identity\r\nContent-Encoding: gzip\r\n\r\nx".encode()
    )
    if answer.startswith(b"HTTP/1.1 200 "):
        assert "content-encoding" not in {name.lower() for name, _ in proxy.seen[-1].headers}
    else:  # nginx from 1.23 on joins them
        assert answer.startswith(b"HTTP/1.1 415 ")


def test_the_key_goes_no_further(proxy: Proxy) -> None:
    """The upstream sees no key, no cookie and no forged address; the log names the client, never the key or a query."""
    status, _, headers = proxy.ask(
        "//serve/./people/3", key=CAMERA, X_API_Key=CAMERA, Cookie="session=1", X_Forwarded_For="6.6.6.6", X_Tenant="a"
    )
    assert status == 200
    got = proxy.seen[-1]
    names = {name.lower(): value for name, value in got.headers}
    assert not {"authorization", "x-api-key", "cookie"} & set(names)
    assert CAMERA not in str(got)
    assert names["x-forwarded-for"] == "127.0.0.1"
    assert names["x-request-id"] == headers["X-Request-Id"]
    assert names["x-tenant"] == "a"
    assert got.line == f"POST {PATH} HTTP/1.1"
    assert proxy.ask(f"{PATH}?key={PHONE}", key=PHONE)[0] == 400
    assert proxy.ask(f"{PATH}?key={PHONE}")[0] == 400
    proxy.raw(f"POST {PATH}?key={PHONE} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 50000000\r\n\r\n".encode())
    proxy.raw(
        f"POST {PATH} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {PHONE}\r\n{PHONE}{{: x\r\n\r\n".encode()
    )
    assert f'"client":"camera-1","address":"127.0.0.1","method":"POST","path":"{PATH}","status":200' in proxy.output
    assert CAMERA not in proxy.output
    assert PHONE not in proxy.output


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/docs",
        "/redoc",
        "/openapi.json",
        "/_inference",
        "/serve",
        "/serve/",
        "/serve/people/3/4",
        "/serve/people/x",
        "/serve/people%2f3%2f4",
        "/serve/../openapi.json",
        "/serve/people/..%2f..%2fopenapi.json",
        "/v2/repository/models/people_3/unload",
        "/v2/models/people_3/infer",
        "/metrics",
    ],
)
def test_everything_else_is_closed(proxy: Proxy, path: str) -> None:
    """Documentation, Triton's API and whatever is no endpoint are 404, with a key and without, and reach nothing."""
    before = len(proxy.seen)
    for method in ("GET", "POST"):
        status, body, _ = proxy.ask(path, method=method, key=CAMERA)
        assert status == 404, (path, status)
        assert b"openapi" not in body
    assert proxy.ask(path, method="GET")[0] == 404
    assert len(proxy.seen) == before


def test_other_methods_are_405(proxy: Proxy) -> None:
    """An endpoint takes POST alone, and says so only to those with a key."""
    for method in ("GET", "PUT", "DELETE", "OPTIONS"):
        assert proxy.ask(method=method, key=CAMERA)[0] == 405
        assert proxy.ask(method=method)[0] == 401


def test_health_needs_no_key(proxy: Proxy) -> None:
    """/healthz is the proxy's own answer, /readyz says whether the upstream answers and passes on none of its words."""
    assert proxy.ask("/healthz", method="GET", body=b"")[:2] == (200, b'{"status":"live"}\n')
    assert proxy.ask("/readyz", method="GET", body=b"")[:2] == (200, b'{"status":"ready"}\n')


def test_plain_http_is_refused(proxy: Proxy) -> None:
    """The port speaks TLS alone, with the certificate that is given (every other test checks it)."""
    plain = http.client.HTTPConnection("127.0.0.1", proxy.port, timeout=10)
    plain.request("POST", PATH, headers={"X-API-Key": CAMERA})
    assert plain.getresponse().status == 400
    plain.close()


def test_keys_change_by_reload(proxy: Proxy) -> None:
    """HUP takes up a new key and drops an old one; a file that cannot be read leaves the keys in force."""
    new = secrets.token_hex(32)
    assert proxy.ask(key=new)[0] == 401
    _write_keys(proxy.folder, (CAMERA, "camera-1"), (PHONE, "phone"), (new, "camera-1"), (OLD, "old"))
    _reload(proxy, lambda: proxy.ask(key=new)[0] == 200)
    assert proxy.ask(key=CAMERA)[0] == 200
    (proxy.folder / "api-keys.map").write_text('"broken', encoding="utf-8")
    _reload(proxy, lambda: "[emerg]" in proxy.output)
    assert proxy.ask(key=OLD)[0] == 200
    _write_keys(proxy.folder, (CAMERA, "camera-1"), (PHONE, "phone"))
    _reload(proxy, lambda: proxy.ask(key=OLD)[0] == 401)
    assert proxy.ask(key=CAMERA)[0] == 200


def _reload(proxy: Proxy, done: object) -> None:
    import signal

    assert callable(done)
    proxy.process.send_signal(signal.SIGHUP)
    deadline = time.monotonic() + 10
    while not done():
        assert time.monotonic() < deadline, proxy.output
        time.sleep(0.02)


def test_limits_and_a_missing_upstream(tmp_path: Path) -> None:
    """With a resolver, as Compose has it: too many requests with one name are 429, others pass; no upstream is 503."""
    gate = threading.Event()
    with running(tmp_path, gate, resolver="127.0.0.11", requests_per_s=5, connections=2) as proxy:
        statuses = [proxy.ask(key=CAMERA)[0] for _ in range(12)]
        assert statuses[:6] == [200] * 6
        assert 429 in statuses
        limited = next(answer for _ in range(50) if (answer := proxy.ask(key=CAMERA))[0] == 429)
        assert limited[2]["Retry-After"] == "1"
        assert proxy.ask(key=PHONE)[0] == 200
        _hold_two(proxy)
        assert proxy.ask(key=PHONE)[0] == 429
        gate.set()
        assert proxy.ask("/readyz", method="GET", body=b"")[0] == 200
    with running(tmp_path / "again", gate, resolver="") as proxy:
        conf = proxy.folder / "nginx.conf"
        (closed,) = free_ports(1)
        text = conf.read_text(encoding="utf-8")
        address = text.partition("upstream inference {\n    server ")[2].partition(";")[0]
        conf.write_text(text.replace(address, f"127.0.0.1:{closed}"), encoding="utf-8")
        _reload(proxy, lambda: proxy.ask(key=CAMERA)[0] == 503)
        status, body, _ = proxy.ask("/readyz", method="GET", body=b"")
        assert (status, b"does not answer" in body) == (503, True)
        assert proxy.ask("/healthz", method="GET", body=b"")[0] == 200


def _hold_two(proxy: Proxy) -> None:
    """Have two requests with PHONE wait at the upstream."""
    before = len(proxy.seen)
    for _ in range(2):
        threading.Thread(target=lambda: proxy.ask("/serve/slow", key=PHONE), daemon=True).start()
    deadline = time.monotonic() + 10
    while len(proxy.seen) < before + 2:
        assert time.monotonic() < deadline
        time.sleep(0.01)
