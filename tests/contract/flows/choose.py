"""Choose among the runs of tao_runs.py and bring weights here, with the real SDK: `choose.py PROJECT FOLDER IDS`."""

import hashlib
import json
import sys
import threading
from collections.abc import Callable
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

from tao2serve.cli.models import models_document
from tao2serve.errors import Tao2ServeError
from tao2serve.registry import calls, runs, trained
from tao2serve.registry.cache import WEIGHTS
from tao2serve.registry.source import ResolvedSource, Source, give_to_clearml, resolve
from tao2serve.registry.trained import Selectors, choose_best, find_trained_models

PROJECT, FOLDER = sys.argv[1], Path(sys.argv[2])
IDS = json.loads(sys.argv[3])
counted: list[str] = []


def count_calls() -> None:
    """Note each call of the API that choosing makes."""

    def call(service: str, action: str, **params: Any) -> dict[str, Any]:
        counted.append(f"{service}.{action}")
        return plain(service, action, **params)

    plain = calls.call
    for module in (calls, runs, trained):
        module.call = call  # type: ignore[attr-defined]


class Lying(BaseHTTPRequestHandler):
    """A file server that ends early, or sends other bytes of the same size."""

    asked: ClassVar[list[str]] = []

    def do_GET(self) -> None:
        self.asked.append(self.path)
        self.send_response(200)
        self.send_header("Content-Length", "100000")
        self.end_headers()
        whole = self.path.startswith("/other") or (self.path.startswith("/once") and len(self.asked) > 2)
        self.wfile.write(bytes(100_000 if whole else 40_000))
        self.close_connection = True

    def log_message(self, *_: Any) -> None:
        pass


def attempt(action: Callable[[], ResolvedSource]) -> dict[str, Any]:
    """What a resolution gives, or the error it ends in."""
    news.clear()
    try:
        resolved = action()
    except Tao2ServeError as error:
        return {**error.to_dict(), "exit_code": error.exit_code, "news": [*news]}
    found = resolved.trained
    return {
        "weights": resolved.weights.name,
        "sha256": resolved.sha256,
        "content": hashlib.sha256(resolved.weights.read_bytes()).hexdigest(),
        "spec_sha256": resolved.spec_sha256,
        "spec": resolved.spec.read_text() if resolved.spec else "",
        "model_id": found.model_id if found else "",
        "task_id": found.task_id if found else "",
        "fetchable": found.fetchable if found else None,
        "mean": found.mean_average_precision if found else None,
        "reason": resolved.reason,
        "news": [*news],
    }


news: list[str] = []


def fetch(source: Source, *, upload: bool = False) -> dict[str, Any]:
    def work() -> ResolvedSource:
        resolved = resolve(source, directory=FOLDER / "fetched", on_news=news.append)
        return give_to_clearml(resolved, source, on_news=news.append) if upload else resolved

    return attempt(work)


def listing(**selectors: Any) -> dict[str, Any]:
    wanted = Selectors(project=PROJECT, **selectors)
    found = find_trained_models(wanted)
    return models_document(found, choose_best(found, subject=str(wanted), metric=wanted.metric))


def damaged(path: str, **known: Any) -> dict[str, Any]:
    """Fetch a model whose file server lies."""
    Lying.asked.clear()
    model = replace(
        find_trained_models(Selectors(project=PROJECT, task="only scalars"))[0],
        uri=f"http://127.0.0.1:{server.server_port}{path}/model.hdf5",
        last_update="",
        **known,
    )
    from tao2serve.registry.fetch import fetch_weights

    def action() -> ResolvedSource:
        path = fetch_weights(model, directory=FOLDER / "damaged", on_news=news.append)
        sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
        return ResolvedSource(weights=path, spec=None, trained=model, reason="", sha256=sha256)

    result = attempt(action)
    return {**result, "kept": sorted(p.name for p in WEIGHTS.folder.iterdir() if p.is_file()) == kept}


count_calls()
all_models = listing()
calls_of_all = [*counted]
best = fetch(Source(selectors=Selectors(project=PROJECT)))
again = fetch(Source(selectors=Selectors(project=PROJECT)))
for path in WEIGHTS.folder.iterdir():
    if path.is_file():
        path.write_bytes(b"damaged in the cache")
after_damage = fetch(Source(selectors=Selectors(project=PROJECT)))
given = FOLDER / "given.hdf5"
given.write_bytes(b"the checkpoint of epoch 20" * 1000)
by_path = IDS["console"][0]
never_uploaded = fetch(Source(text=by_path))
planned = fetch(Source(text=by_path, weights=given))
uploaded = fetch(Source(text=by_path, weights=given), upload=True)
uploaded_again = fetch(Source(text=by_path, weights=given), upload=True)
later = fetch(Source(text=by_path))
task = fetch(Source(text=IDS["console_task"]))
server = ThreadingHTTPServer(("127.0.0.1", 0), Lying)
threading.Thread(target=server.serve_forever, daemon=True).start()
kept = sorted(p.name for p in WEIGHTS.folder.iterdir() if p.is_file())
result = {
    "all": all_models,
    "calls": calls_of_all,
    "car": listing(metric="CAR")["reason"],
    "tagged": [model["model_id"] for model in listing(tags=("street", "unpruned"))["models"]],
    "named": [model["task_name"] for model in listing(task="^unpr")["models"]],
    "best": best,
    "again": again,
    "after_damage": after_damage,
    "never_uploaded": never_uploaded,
    "planned": planned,
    "uploaded": uploaded,
    "uploaded_again": uploaded_again,
    "later": later,
    "task": task,
    "afterwards": listing(),
    "short": damaged("/short"),
    "other": damaged("/other", sha256=hashlib.sha256(b"").hexdigest()),
    "once": damaged("/once"),
}
server.shutdown()
print(json.dumps(result))
