"""Endpoint versions as clearml-serving loads them, and nothing else of it: for `uvicorn --workers N`.

PACKAGES holds preprocess packages, one folder a version, named by it. `POST /VERSION` is answered by that version's
`Preprocess`; `POST /renew` drops all objects and modules, as clearml-serving does at a change. Each answer names the
process in its header `x-pid`.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path
from typing import Any

PACKAGES = Path(os.environ["PACKAGES"])
loaded: dict[str, Any] = {}


def load(version: str) -> Any:
    folder = PACKAGES / version
    spec = importlib.util.spec_from_file_location(
        f"py_code_{version}", folder / "__init__.py", submodule_search_locations=[str(folder), *sys.path]
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module.Preprocess()


async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:
    if scope["type"] != "http":
        return
    body, more = b"", True
    while more:  # a body comes in as many messages as reads it took
        message = await receive()
        body, more = body + message.get("body", b""), message.get("more_body", False)
    version = scope["path"].strip("/")
    headers = [(b"x-pid", str(os.getpid()).encode())]
    if version == "renew":
        loaded.clear()
        for name in [name for name in sys.modules if name.startswith("py_code_")]:
            del sys.modules[name]
        status = 200
    else:
        if version not in loaded:
            loaded[version] = load(version)
        status = (await loaded[version].process(body, {})).status_code
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": b""})
