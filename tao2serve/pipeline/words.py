"""What a step has done, in a line."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from tao2serve.pipeline.results import StepResult

__all__ = ["in_words"]


def in_words(result: StepResult) -> str:
    """Return what came of a step; "" where its document does not say."""
    try:
        return WORDS[result.step](result.document)
    except (KeyError, TypeError, ValueError, IndexError, AttributeError):
        return ""


def _choose(document: Mapping[str, Any]) -> str:
    return f"{document['name']}, model {document['model_id']}: {document['reason']}"


def _export(document: Mapping[str, Any]) -> str:
    first = document["artifacts"][0]
    return f"{first['path'].rpartition('/')[2]}, {first['precision']}, SHA-256 {first['sha256'][:12]}…"


def _build(document: Mapping[str, Any]) -> str:
    names = ", ".join(model["name"] for model in document["models"])
    return f"{names}, placement {document['placement']}, SHA-256 {document['artifact']['sha256'][:12]}…"


def _verify(document: Mapping[str, Any]) -> str:
    boxes = document["boxes"]
    return f"{boxes['matched']} of {boxes['expected']} boxes match over {document['images']} pictures"


def _publish(document: Mapping[str, Any]) -> str:
    return f"model {document['artifact']['model_id']}"


def _deploy(document: Mapping[str, Any]) -> str:
    version = document["endpoint"]["version"]
    return f"version {version} gets {100 * document['alias']['after'][version]:g} % of the requests"


def _loadtest(document: Mapping[str, Any]) -> str:
    judged = ", ".join(one["gate"] for one in document["slo"])
    return f"{document['requests']} requests, p99 {document['latency_ms']['p99']:.0f} ms; held: {judged}"


def _promote(document: Mapping[str, Any]) -> str:
    return ", ".join(f"version {version} gets {100 * share:g} %" for version, share in document["route"].items())


WORDS: Final[Mapping[str, Callable[[Mapping[str, Any]], str]]] = {
    "choose": _choose, "export": _export, "build": _build, "verify": _verify, "publish": _publish,
    "deploy": _deploy, "loadtest": _loadtest, "promote": _promote,
}  # fmt: skip
