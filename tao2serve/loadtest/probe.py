"""One request to each target before any load, because load on what does not answer measures nothing."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from tao2serve.errors import InputError, ServiceError
from tao2serve.loadtest.addresses import shown_url
from tao2serve.loadtest.plan import Target
from tao2serve.loadtest.sending import asked_patiently
from tao2serve.loadtest.tritons import probe_triton
from tao2serve.values import IMAGE_MEDIA_TYPES

__all__ = ["probe"]


def probe(targets: Iterable[Target], images: tuple[Path, ...], *, timeout_s: float) -> dict[str, str]:
    """Return what each Triton is sent, by the target's label, if each target answers the first image.

    A server error is asked again twice: an endpoint that fails now and then can be measured. Raises ServiceError, or
    InputError if a target refuses the image.
    """
    sent = {}
    for target in targets:
        if target.protocol == "endpoint":
            _probe_endpoint(target.url, images[0], timeout_s=timeout_s)
        else:
            sent[target.label] = probe_triton(target, images, timeout_s=timeout_s)
    return sent


def _probe_endpoint(url: str, image: Path, *, timeout_s: float) -> None:
    status, text = asked_patiently(lambda: _post(url, image, timeout_s=timeout_s), status=lambda answer: answer[0])
    evidence = " ".join(text.split())[:300]
    if status == 422:
        raise InputError(str(image), f"was refused by {shown_url(url)}", evidence=evidence, hint="give other pictures")
    if status != 200:
        raise ServiceError(
            shown_url(url),
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
        raise ServiceError(shown_url(url), "does not answer", evidence=evidence, hint=hint) from error
    except OSError as error:
        raise InputError(str(image), "cannot be read", evidence=str(error)) from error
    return response.status_code, response.text
