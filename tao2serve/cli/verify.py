"""`tao2serve verify`: does one form of a model give the numbers of another?"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from tao2serve.cli.options import Clustering, Json, Service, Spec, one_of
from tao2serve.cli.output import print_json, print_text, quiet
from tao2serve.cli.progress import shown_steps
from tao2serve.errors import ParityError
from tao2serve.remote.carried import MODEL, OUTPUT

if TYPE_CHECKING:
    from tao2serve.verify.request import Picture
    from tao2serve.verify.verification import AccuracyChange, Verification

DRAWN: Final = 5


def verify(
    reference: Annotated[
        str,
        MODEL,
        typer.Argument(
            metavar="REFERENCE", help="A .hdf5, .onnx or .plan file, grpc://HOST:PORT/MODEL on Triton, or an endpoint."
        ),
    ],
    candidate: Annotated[str, MODEL, typer.Argument(metavar="CANDIDATE", help="What must equal it; the same kinds.")],
    images: Annotated[
        Path | None, typer.Option("--images", metavar="DIR", help="Pictures to look at; default: a few synthetic ones.")
    ] = None,
    labels: Annotated[
        Path | None,
        typer.Option("--labels", metavar="DIR", help="KITTI labels of the pictures: adds mAP."),
    ] = None,
    spec: Spec = None,
    clustering: Clustering = None,
    limit: Annotated[
        int | None, typer.Option("--limit", metavar="N", help="Look at the first N pictures only.")
    ] = None,
    output: Annotated[
        Path | None,
        OUTPUT,
        typer.Option("--output", "-o", metavar="DIR", help="Draw the pictures that differ most here."),
    ] = None,
    tensor_tolerance: Annotated[
        float | None, typer.Option("--tensor-tolerance", metavar="X", help="Largest difference of fp32 tensors.")
    ] = None,
    matched_ratio: Annotated[
        float | None, typer.Option("--matched-ratio", metavar="R", help="Boxes that must match, from 0 to 1.")
    ] = None,
    provider: Annotated[
        str, typer.Option("--provider", metavar="P", help="Where a candidate's ONNX file runs: cpu or cuda.")
    ] = "cpu",
    service: Service = None,
    json_output: Json = False,
) -> int:
    """Compare the tensors and boxes of two forms of a model, and name the first stage that differs. Exit 7 if they do.

    Example: tao2serve verify weights/model.hdf5 onnx/model.onnx --images pictures
    """
    from tao2serve.config import home, load_settings
    from tao2serve.export.inference import PROVIDERS
    from tao2serve.verify.request import VerifyRequest, decoding_of, limits_for, pictures_of
    from tao2serve.verify.subjects import open_subject
    from tao2serve.verify.verify import verify as run

    flags = {"service": service, "tensor_tolerance": tensor_tolerance}
    if matched_ratio is not None:
        flags |= {"matched_ratio": matched_ratio, "matched_ratio_int8": matched_ratio}
    settings = load_settings(flags)
    chosen = one_of(provider, PROVIDERS, option="--provider")
    with (
        ExitStack() as stack,
        quiet(home() / "logs" / "verify.log") as terminal,
        shown_steps(terminal) as steps,
    ):
        with steps.step("open both sides") as step:
            ours = open_subject(reference, settings, stack=stack)
            theirs = open_subject(candidate, settings, stack=stack, provider=chosen)
            decoding = decoding_of(ours, theirs, spec=spec, clustering=clustering)
            step.note(", ".join(f"{side.kind} {side.precision}".strip() for side in (ours, theirs)))
        with steps.step("compare") as step:
            pictures = pictures_of(images, decoding, labels=labels, limit=limit)
            limits = limits_for(ours, theirs, settings)
            request = VerifyRequest(
                reference=ours, candidate=theirs, decoding=decoding, pictures=pictures, limits=limits
            )
            result = run(request, stack=stack, on_news=step.news)
            step.note(("passed" if result.judged else "undecided") if result.passed else "they differ")
        drawings = _drawings(result, pictures.items, output) if output else []
    if json_output:
        print_json({**result.to_dict(), "drawings": [str(path) for path in drawings]})
    else:
        print_text("\n".join([summary(result), *(f"{'drawn':<11} {path}" for path in drawings)]))
    return 0 if result.passed else ParityError.exit_code


def _drawings(result: Verification, pictures: Sequence[Picture], folder: Path) -> list[Path]:
    """Draw the worst images; none differs, none is drawn."""
    from tao2serve.verify.drawing import save_difference

    read = {picture.name: picture.read for picture in pictures}
    worst = result.worst_images[:DRAWN]
    return [
        save_difference(read[image.name](), image, path=folder / _drawing_name(number, image.name))
        for number, image in enumerate(worst, start=1)
    ]


def _drawing_name(number: int, image: str) -> str:
    return f"difference-{number}-{Path(image).stem.replace(' ', '-')}.png"


def summary(result: Verification) -> str:
    """Return the result as text."""
    lines = [
        f"{role:<11} {side.name}  ({' '.join(filter(None, (side.kind, side.precision)))})"
        for role, side in (("reference", result.reference), ("candidate", result.candidate))
    ]
    lines += [f"{'pictures':<11} {result.image_source}", f"{'decoded':<11} with {result.decoded_with}"]
    if result.tensors:
        width = max(len(tensor.name) for tensor in result.tensors)
        lines.append(f"{'tensors':<11} {'':<{width}}  {'max':>9}  {'mean':>9}  cosine")
        lines += [
            f"{'':<11} {tensor.name:<{width}}  {tensor.max_abs:>9.2g}  {tensor.mean_abs:>9.2g}  {tensor.cosine:.6f}"
            for tensor in result.tensors
        ]
    lines.append(f"{'boxes':<11} {result.boxes}")
    if result.accuracy:
        lines += _accuracy(result.accuracy)
    lines += [f"{'note':<11} {finding}" for finding in result.findings]
    lines += [f"{'FAILED':<11} {failure}" for failure in result.failures]
    if result.first_divergence:
        lines.append(f"{'parts at':<11} {result.first_divergence}")
    if not result.judged:
        lines.append(f"{'UNDECIDED':<11} boxes decide here, and neither side found one")
    elif result.passed:
        lines.append(f"{'passed':<11} {_allowed(result)}")
    return "\n".join(lines)


def _accuracy(accuracy: AccuracyChange) -> list[str]:
    """Return a table of average precision in percent, as TAO prints it."""
    pairs = [
        (ours.name, ours.average_precision, theirs.average_precision)
        for ours, theirs in zip(accuracy.reference.classes, accuracy.candidate.classes, strict=True)
    ]
    pairs.append(("mAP", accuracy.reference.mean, accuracy.candidate.mean))
    width = max(len(name) for name, _, _ in pairs)
    head = f"{accuracy.reference.mode}, {accuracy.reference.images} images"
    lines = [f"{'AP in %':<11} {'':<{width}}  reference  candidate  change   ({head})"]
    lines += [
        f"{'':<11} {name:<{width}}  {100 * ours:>9.2f}  {100 * theirs:>9.2f}  {100 * (theirs - ours):>+6.2f}"
        for name, ours, theirs in pairs
    ]
    return lines


def _allowed(result: Verification) -> str:
    limits = result.limits
    if limits.tensor_tolerance is None and not (result.boxes.expected or result.boxes.found):
        return f"without boxes the tensors' cosine must be at least {limits.least_cosine:g}"
    parts = [f"{limits.matched_ratio:.0%} of the boxes must match"]
    if limits.tensor_tolerance is not None and result.tensors:
        parts.insert(0, f"tensors may be off by {limits.tensor_tolerance:g}")
    return ", ".join(parts)
