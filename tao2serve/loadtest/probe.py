"""One request to each target before any load, because load on what does not answer measures nothing."""

from __future__ import annotations

import time
from collections.abc import Iterable
from pathlib import Path

from tao2serve.errors import InputError, ServiceError
from tao2serve.loadtest.plan import Target
from tao2serve.values import IMAGE_MEDIA_TYPES

__all__ = ["probe"]

_PAUSES_S = (0.5, 0.5, 0.0)


def probe(targets: Iterable[Target], image: Path, *, timeout_s: float) -> None:
    """Return if each target answers an image; raises ServiceError, or InputError if an endpoint refuses the image.

    A server error is asked again twice: an endpoint that fails now and then can be measured.
    """
    for target in targets:
        if target.protocol == "endpoint":
            _probe_endpoint(target.url, image, timeout_s=timeout_s)
        else:
            _probe_triton(target, image, timeout_s=timeout_s)


def _probe_endpoint(url: str, image: Path, *, timeout_s: float) -> None:
    for pause_s in _PAUSES_S:
        status, text = _post(url, image, timeout_s=timeout_s)
        if status < 500:
            break
        time.sleep(pause_s)
    evidence = " ".join(text.split())[:300]
    if status == 422:
        raise InputError(str(image), f"was refused by {url}", evidence=evidence, hint="give other pictures")
    if status != 200:
        raise ServiceError(
            url,
            f"answered {status} to a probe request with {image.name}",
            evidence=evidence,
            hint="`tao2serve predict` shows the whole answer",
        )


def _post(url: str, image: Path, *, timeout_s: float) -> tuple[int, str]:
    """Return status and text of the answer to one image."""
    import httpx

    headers = {"Content-Type": IMAGE_MEDIA_TYPES[image.suffix.lower()]}
    try:
        # trust_env: locust asks no proxy either
        response = httpx.post(url, content=image.read_bytes(), headers=headers, timeout=timeout_s, trust_env=False)
    except httpx.HTTPError as error:
        evidence = f"{type(error).__name__}: {error}"
        hint = "is the inference service up, and is this its URL?"
        raise ServiceError(url, "does not answer", evidence=evidence, hint=hint) from error
    except OSError as error:
        raise InputError(str(image), "cannot be read", evidence=str(error)) from error
    return response.status_code, response.text


def _probe_triton(target: Target, image: Path, *, timeout_s: float) -> None:
    from tao2serve.loadtest.tritons import triton_sender  # type: ignore[import-not-found,unused-ignore]

    sender = triton_sender(target, (image,), timeout_s=timeout_s)
    try:
        reply = sender.send(0)
    finally:
        sender.close()
    if reply.error:
        raise ServiceError(
            f"{target.label} at {target.url}",
            f"did not answer a probe request with {image.name}: {reply.error}",
            evidence=reply.detail,
            hint="is Triton up, and is the model loaded?",
        )
