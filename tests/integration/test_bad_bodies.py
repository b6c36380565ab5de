"""A deployed endpoint under what is no picture: a 4xx with one sentence, and nothing of it stays."""

from __future__ import annotations

import random
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

import httpx
import psutil
import pytest
from bad_bodies import BYTES, JPEG, Body, mutated, refused
from command_line import CommandLine, processes_of

from tao2serve.sandbox.samples import pictures

pytestmark = pytest.mark.integration

PICTURE: Final = pictures()[0].read_bytes()
NOWHERE: Final = "http://127.0.0.1:9/x.jpg"
NAMES: Final = [body.name for body in refused(PICTURE, url=NOWHERE)]
REQUESTS: Final = 10_000
WARM_UP: Final = 1_500  # after these each thread has its buffers, each process its code
LOGGED_BYTES: Final = 400  # a request's line in the access log, and then some


@pytest.fixture(scope="module")
def client() -> Iterator[httpx.Client]:
    with httpx.Client(timeout=30, trust_env=False) as client:
        yield client


@pytest.fixture(scope="module")
def listener() -> Iterator[socket.socket]:
    """A server that nobody may call."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setblocking(False)
        yield server


@pytest.fixture(scope="module")
def bodies(listener: socket.socket) -> dict[str, Body]:
    url = f"http://127.0.0.1:{listener.getsockname()[1]}/x.jpg"
    return {body.name: body for body in refused(PICTURE, url=url)}


@pytest.fixture(params=["endpoint", "ensemble"])
def url(request: pytest.FixtureRequest, deployed: dict[str, Any], whole: dict[str, Any]) -> str:
    """The same detector, its pictures read in ClearML Serving or on Triton."""
    return str({"endpoint": deployed, "ensemble": whole}[request.param]["endpoint"]["url"])


def post(client: httpx.Client, url: str, body: Body) -> httpx.Response:
    headers = {"Content-Type": body.media_type}
    if body.encoding:
        headers["Content-Encoding"] = body.encoding
    return client.post(url, content=body.content, headers=headers)


def log_sizes(sandbox: CommandLine) -> int:
    logs = Path(sandbox.environment["TAO2SERVE_HOME"]) / "sandbox" / "logs"
    return sum(path.stat().st_size for path in logs.iterdir())


@pytest.mark.parametrize("name", NAMES)
def test_a_bad_body_is_the_clients_fault_and_the_next_good_one_is_answered(
    url: str, client: httpx.Client, bodies: dict[str, Body], listener: socket.socket, name: str
) -> None:
    """A 4xx with one sentence, no URL fetched, and the boxes of the next picture are what they were."""
    good = Body(name="good", content=PICTURE)
    before = post(client, url, good).json()["predictions"]
    refusal = post(client, url, bodies[name])
    assert refusal.status_code in bodies[name].statuses, refusal.text
    detail = refusal.json()["detail"]
    assert detail
    if isinstance(detail, str):  # FastAPI's own list stands for what is no JSON object
        assert len(detail) < 250
        assert "\n" not in detail
        assert "Traceback" not in detail
    assert post(client, url, good).json()["predictions"] == before
    with pytest.raises(BlockingIOError):
        listener.accept()


def test_a_picture_under_any_media_type_that_says_bytes(url: str, client: httpx.Client) -> None:
    """The bytes say what they are: the media type may be wrong, vague or missing."""
    wanted = post(client, url, Body(name="good", content=PICTURE)).json()["predictions"]
    for media_type in ("image/png", BYTES, "image/x-unknown"):
        assert (
            post(client, url, Body(name="good", content=PICTURE, media_type=media_type)).json()["predictions"] == wanted
        )


def test_ten_thousand_mixed_requests_leave_memory_flat_and_logs_short(
    sandbox: CommandLine,
    deployed: dict[str, Any],
    whole: dict[str, Any],
    client: httpx.Client,
    bodies: dict[str, Body],
) -> None:
    """Bodies of all kinds from four clients, to both placements: never a 5xx, memory within 5 %, short logs."""
    urls = [document["endpoint"]["url"] for document in (deployed, whole)]
    chance = random.Random(7)
    bad, damaged = list(bodies.values()), mutated(PICTURE, seed=7)
    good = Body(name="good", content=PICTURE, media_type=JPEG, statuses=(200,))

    def mix(count: int) -> list[Body]:
        draws = (chance.random() for _ in range(count))
        return [good if draw < 0.05 else next(damaged) if draw < 0.15 else chance.choice(bad) for draw in draws]

    def wrong(body: Body) -> str:
        response = post(client, chance.choice(urls), body)
        return (
            ""
            if response.status_code in body.statuses
            else f"{body.name}: {response.status_code} {response.text[:200]}"
        )

    def send(pool: ThreadPoolExecutor, count: int) -> None:
        for start in range(0, count, 500):
            part = mix(min(500, count - start))
            failures = [failure for failure in pool.map(wrong, part) if failure]
            assert not failures, failures[:5]

    with ThreadPoolExecutor(4) as pool:
        send(pool, WARM_UP)
        time.sleep(1.0)
        memory, logged = _memory(sandbox), log_sizes(sandbox)
        send(pool, REQUESTS)
        time.sleep(1.0)
    after = _memory(sandbox)
    assert log_sizes(sandbox) - logged < REQUESTS * LOGGED_BYTES
    assert sum(after.values()) < 1.05 * sum(memory.values()), (memory, after)


def _memory(sandbox: CommandLine) -> dict[str, int]:
    """Bytes that the serving processes hold for themselves alone."""
    sizes: dict[str, int] = {}
    for process in processes_of(Path(sandbox.environment["TAO2SERVE_HOME"])):
        line = " ".join(process.cmdline())
        if "clearml_serving" in line or "triton" in line:
            sizes[f"{process.pid} {Path(line.split()[0]).name}"] = process.memory_full_info().uss
    assert sizes, [
        psutil.Process(each.pid).cmdline() for each in processes_of(Path(sandbox.environment["TAO2SERVE_HOME"]))
    ]
    return sizes
