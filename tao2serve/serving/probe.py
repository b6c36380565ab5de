"""Whether versions that are registered already can take requests: on Triton, and by a smoke request each."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Final

from tao2serve.config import Settings
from tao2serve.errors import InputError, ServiceError, Tao2ServeError
from tao2serve.serving.client import wait_for_answers
from tao2serve.serving.names import triton_model_name
from tao2serve.serving.service import ServingService
from tao2serve.serving.state import ServiceState
from tao2serve.triton.control import TritonControl

__all__ = ["picture_for", "prove_versions", "triton_address", "triton_of"]

# A model that was just loaded may refuse for a moment; one that still fails then is not routed to.
FAULT_S: Final = 10.0
DEFAULT_SIZE: Final = (544, 960)


def triton_address(service: ServingService, settings: Settings) -> str:
    """Return host:port of the Triton that is ours to control: "" if it is not known, or ClearML Serving's own."""
    if settings.managed:
        return ""
    return settings.triton_grpc or service.setting("triton_grpc_server")


@contextmanager
def triton_of(service: ServingService, settings: Settings) -> Iterator[TritonControl | None]:
    """Yield a connection to the Triton that is ours to control; None if there is none such, or it is away."""
    address = triton_address(service, settings)
    if not address:
        yield None
        return
    with TritonControl(address) as control:
        yield control if control.is_ready() else None


def prove_versions(
    service: ServingService,
    state: ServiceState,
    endpoint: str,
    versions: Iterable[int],
    *,
    settings: Settings,
    patience_s: float,
    on_news: Callable[[str], None],
) -> bytes:
    """Return when each version has answered one request; what is only unloaded is loaded on Triton first.

    Nothing is loaded of what ClearML Serving's own controller brings there.
    The picture that was asked about is returned. Raises InputError for a version that is not registered,
    ServiceError or NotReadyError for one that does not answer.
    """
    image = b""
    for version in versions:
        url = f"{endpoint}/{version}"
        registered = state.endpoints.get(url)
        if registered is None:
            raise InputError(
                f"endpoint {url}",
                "is not registered",
                evidence=f"registered: {', '.join(map(str, state.versions(endpoint))) or 'no version'}",
                hint="deploy it again: tao2serve deploy",
            )
        on_news(f"asking {url}")
        if not registered.is_managed:
            _load(service, triton_model_name(endpoint, version), settings, on_news)
        image = picture_for(registered.input_size)
        wait_for_answers(
            f"{service.base_url(settings)}/{url}", image, versions=frozenset({str(version)}), count=1,
            timeout_s=patience_s, fault_s=FAULT_S, on_news=on_news,
        )  # fmt: skip
    return image


def _load(service: ServingService, model: str, settings: Settings, on_news: Callable[[str], None]) -> None:
    """Load a model that Triton has unloaded; whether it answers in the end, a request must tell anyhow."""
    with triton_of(service, settings) as control:
        if control is None:
            on_news("Triton is not ours to ask: the request alone can tell")
            return
        if control.is_model_ready(model):
            return
        on_news(f"loading {model} on Triton")
        try:
            control.load(model, timeout_s=settings.ready_timeout_s)
        except Tao2ServeError as error:
            raise ServiceError(
                f"Triton model {model}",
                "is not loaded, and does not load",
                evidence=error.evidence or error.fact,
                hint=error.hint,
            ) from error


def picture_for(size: tuple[int, int] | None) -> bytes:
    """Return a grey JPEG of (height, width), for a request whose boxes nobody looks at."""
    from PIL import Image

    height, width = size or DEFAULT_SIZE
    buffer = io.BytesIO()
    Image.new("RGB", (width, height), (127, 127, 127)).save(buffer, format="JPEG")
    return buffer.getvalue()
