"""Options that several commands share, and how their values are read."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, TypeVar

import typer

from tao2serve.errors import UsageError

if TYPE_CHECKING:
    from tao2serve.artifacts import ArtifactRequest, EngineWish
    from tao2serve.registry.trained import Selectors

_Word = TypeVar("_Word", bound=str)

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout, everything else on stderr.")]
Spec = Annotated[
    Path | None, typer.Option("--spec", metavar="FILE", help="TAO experiment spec, if it is not with the model.")
]
Clustering = Annotated[
    Path | None,
    typer.Option("--clustering", metavar="FILE", help="Clustering file of tao-toolkit-triton-apps, over the spec's."),
]
Precision = Annotated[
    str | None,
    typer.Option("--precision", metavar="P", help="fp32, fp16 or int8; default: that of the weights."),
]
CalibrationImages = Annotated[
    Path | None,
    typer.Option("--calibration-images", metavar="DIR", help="int8: pictures like those that will be served."),
]
CalibrationCache = Annotated[
    Path | None,
    typer.Option("--calibration-cache", metavar="FILE", help="int8: TAO's calibration cache, or its QAT scales."),
]
CalibrationMethod = Annotated[
    str, typer.Option("--calibration-method", metavar="M", help="percentile (the default), entropy or minmax.")
]
AcceptParity = Annotated[
    bool, typer.Option("--accept-parity", help="Go on though the precision costs more than the settings allow.")
]
Uint8Input = Annotated[
    bool, typer.Option("--uint8-input", help="Scale in the graph: it takes uint8 pixels, a quarter of the bytes.")
]
AbsoluteBoxes = Annotated[
    bool, typer.Option("--absolute-boxes", help="Decode in the graph: it gives boxes in network pixels.")
]
Endpoint = Annotated[str, typer.Option("--endpoint", metavar="NAME", help="Name of the endpoint.")]
SmokeImage = Annotated[
    Path | None,
    typer.Option("--image", metavar="FILE", help="Picture for the smoke request and the parity of boxes."),
]
Project = Annotated[str, typer.Option("--project", metavar="NAME", help="ClearML project, exactly.")]
Task = Annotated[
    str, typer.Option("--task", metavar="REGEX", help="Part of the ClearML task's name (a regular expression).")
]
Tags = Annotated[
    list[str] | None, typer.Option("--tag", metavar="TAG", help="ClearML tag; may be given several times.")
]
Metric = Annotated[
    str,
    typer.Option(
        "--metric", metavar="NAME", help="What the best is best at: mAP (the default), or a class by its name."
    ),
]
Service = Annotated[
    str | None, typer.Option("--service", metavar="ID", help="Serving service; default: the only one that runs.")
]
Placement = Annotated[
    str | None,
    typer.Option(
        "--placement",
        metavar="WHERE",
        help="Where pictures are read and boxes clustered: endpoint (ClearML Serving) or ensemble (Triton).",
    ),
]
Managed = Annotated[
    bool | None,
    typer.Option("--managed/--no-managed", help="Triton is run by ClearML Serving's own controller, not by tao2serve."),
]
Resize = Annotated[
    str | None, typer.Option("--resize", metavar="MODE", help="lanczos, TAO's own numbers, or fast, nearly those.")
]
ServePixels = Annotated[
    bool | None,
    typer.Option(
        "--uint8-input/--no-uint8-input",
        help="Serve a graph that takes pixels, a quarter to carry; default: if it can be made so.",
    ),
]
ServeBoxes = Annotated[
    bool | None,
    typer.Option("--absolute-boxes/--no-absolute-boxes", help="Serve a graph that gives boxes, not offsets."),
]
MaxBatchSize = Annotated[
    int | None, typer.Option("--max-batch-size", metavar="N", help="Largest batch that Triton forms.")
]
TunedFile = Annotated[
    Path | None, typer.Option("--tuned", metavar="FILE", help="Settings that loadtest --tune has proposed.")
]
Instances = Annotated[int | None, typer.Option("--instances", metavar="N", help="Instances of the detector.")]


def selectors(project: str, task: str, tags: list[str] | None, metric: str = "") -> Selectors:
    """Gather the options that select trained models; raises UsageError if --task is no regular expression."""
    from tao2serve.registry.trained import Selectors

    try:
        re.compile(task)
    except re.error as error:
        raise UsageError("--task", f"is {task!r}, not a regular expression", evidence=str(error)) from error
    return Selectors(project=project, task=task, tags=tuple(tags or ()), metric=metric.strip())


def artifact_request(
    precision: str | None,
    *,
    calibration_images: Path | None,
    calibration_cache: Path | None,
    calibration_method: str,
    accept_parity: bool,
    fold_batch_norm: bool = False,
    uint8_input: bool | None = False,
    absolute_boxes: bool = False,
    images: Path | None = None,
    labels: Path | None = None,
    engine: EngineWish | None = None,
    must_be_judged: bool = False,
) -> ArtifactRequest:
    """Gather the options that say what is made of the weights; raises UsageError for a word that is none of theirs."""
    from tao2serve.artifacts import ArtifactRequest
    from tao2serve.export.precision.calibrate import DEFAULT_METHOD, METHODS
    from tao2serve.export.precision.write import PRECISIONS

    return ArtifactRequest(
        precision=one_of(precision, PRECISIONS, option="--precision") if precision else None,
        calibration_images=calibration_images,
        calibration_cache=calibration_cache,
        calibration_method=one_of(calibration_method or DEFAULT_METHOD, METHODS, option="--calibration-method"),
        fold_batch_norm=fold_batch_norm,
        uint8_input=uint8_input,
        absolute_boxes=absolute_boxes,
        images=images,
        labels=labels,
        accept_parity=accept_parity,
        engine=engine,
        must_be_judged=must_be_judged,
    )


def one_of(word: str, known: Sequence[_Word], *, option: str) -> _Word:
    """Return the word of `known` that was given; raises UsageError for any other."""
    for candidate in known:
        if candidate == word:
            return candidate
    raise UsageError(option, f"is {word!r}", hint=f"one of {', '.join(known)}")


def percent(text: str, *, option: str) -> float:
    """Read a share such as 10, 10% or 2.5 %; raises UsageError for anything else."""
    try:
        return float(text.strip().removesuffix("%"))
    except ValueError:
        raise UsageError(option, f"is {text!r}, not a percentage", hint=f"for example: {option} 10") from None


DURATION: Final = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|s|m)?")
SECONDS: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, None: 1.0}


def seconds(text: str, *, option: str) -> float:
    """Read a duration such as 20s, 500ms or 2m; raises UsageError for anything else."""
    match = DURATION.fullmatch(text.strip())
    if match is None:
        raise UsageError(option, f"is {text!r}, not a duration", hint="for example: 20s, 500ms or 2m")
    return float(match.group(1)) * SECONDS[match.group(2)]
