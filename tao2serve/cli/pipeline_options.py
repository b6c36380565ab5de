"""The options of `pipeline`, which `watch` has too, and the request that they make."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tao2serve.cli.elsewhere import Queue, QueueImage, QueueWait, image_for, sent_settings
from tao2serve.cli.options import percent, seconds
from tao2serve.errors import UsageError
from tao2serve.remote.carried import INPUT, VALUE

if TYPE_CHECKING:
    from tao2serve.config import Settings
    from tao2serve.pipeline.request import PipelineRequest, QueueWish
    from tao2serve.registry.source import Source
    from tao2serve.remote.request import Given

__all__ = ["Canary", "GateImages", "GateTime", "Queue", "QueueImage", "QueueWait", "Slo", "Until", "Users",
           "VerifyImages", "given_options", "pipeline_request"]  # fmt: skip

VerifyImages = Annotated[
    Path | None,
    typer.Option("--images", metavar="DIR", help="Pictures that verify looks at; default: those of the gate."),
]
Canary = Annotated[str, typer.Option("--canary", metavar="PERCENT", help="Share of the requests until it is promoted.")]
Slo = Annotated[
    list[str] | None,
    typer.Option("--slo", metavar="LIMIT", help="Gate of the load test: p99=250ms; may be given several times."),
]
GateImages = Annotated[Path | None, typer.Option("--gate-images", metavar="DIR", help="Pictures for the load test.")]
GateTime = Annotated[str, typer.Option("--gate-time", metavar="TIME", help="How long it measures: 20s, 2m.")]
Users = Annotated[int, typer.Option("--users", metavar="N", help="Clients of the load test.")]
Until = Annotated[
    str,
    typer.Option(
        "--until",
        metavar="STEP",
        help="The last step: choose, export, build, verify, publish, deploy, loadtest, promote.",
    ),
]


def given_options(paths: Mapping[str, Path | None], values: Mapping[str, str | None], *flags: str) -> tuple[Given, ...]:
    """Return options as the steps' commands get them: files travel, values and flags are words."""
    from tao2serve.remote.request import Given

    files = [Given(option=name, values=(str(path),), carried=INPUT) for name, path in paths.items() if path is not None]
    words = [Given(option=name, values=(value,), carried=VALUE) for name, value in values.items() if value]
    return (*files, *words, *(Given(option=flag, values=(), carried=VALUE) for flag in flags))


def pipeline_request(
    source: Source,
    settings: Settings,
    flags: Mapping[str, Any],
    *,
    endpoint: str,
    making: tuple[Given, ...],
    image: Path | None,
    verify_images: Path | None,
    canary: str,
    slo: list[str] | None,
    gate_images: Path | None,
    gate_time: str,
    users: int,
    queue: QueueWish | None,
    from_step: str,
    until: str,
    watch: str = "",
) -> PipelineRequest:
    """Gather what is asked for; raises UsageError for what cannot be."""
    from tao2serve.pipeline.request import PipelineRequest, check_request

    if users < 1:
        raise UsageError("--users", f"is {users}", hint="1 or more")
    seconds(gate_time, option="--gate-time")
    request = PipelineRequest(
        endpoint=endpoint, source=source, making=making, judging=given_options({"--image": image}, {}),
        verify_images=verify_images, canary=percent(canary, option="--canary"), slo=tuple(slo or ()),
        gate_images=gate_images, gate_time=gate_time, users=users, settings=sent_settings(settings, flags), queue=queue,
        from_step=from_step, until=until, watch=watch,
    )  # fmt: skip
    check_request(request)
    return request


def queue_wish(
    queue: str | None, wait: str | None, image: str | None, settings: Settings, making: tuple[Given, ...]
) -> QueueWish | None:
    """Return where the steps are to run, None for here; raises UsageError for options that do nothing."""
    from tao2serve.pipeline.request import QueueWish

    stray = [option for option, value in (("--queue-wait", wait), ("--queue-image", image)) if value]
    if queue is None:
        if stray:
            raise UsageError(", ".join(stray), "has no effect here", hint="add: --queue NAME")
        return None
    wait_s = settings.queue_wait_s if wait is None else seconds(wait, option="--queue-wait")
    image = image or settings.queue_image or image_for(making)
    return QueueWish(name=queue, wait_s=wait_s, wait_for_worker=wait is not None, image=image)
