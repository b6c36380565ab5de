"""`verify`: the same images through two subjects, their tensors and boxes compared."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from tao2serve.errors import InputError
from tao2serve.export.divergence import first_divergence
from tao2serve.export.reference import Outputs
from tao2serve.images import Pixels
from tao2serve.parity.accuracy import average_precision
from tao2serve.parity.boxes import compare_boxes
from tao2serve.parity.tensors import TensorDifference, compare_tensors
from tao2serve.runtime import Detections, DetectorParams, ImageError, postprocess
from tao2serve.runtime.candidates import absolute_boxes
from tao2serve.runtime.preprocess import read_pixels
from tao2serve.serving.client import Answer
from tao2serve.tao.keras import Array
from tao2serve.tao.reading import cautions
from tao2serve.verify.request import Picture, VerifyRequest
from tao2serve.verify.subjects import Subject, network_behind
from tao2serve.verify.verification import AccuracyChange, ImageResult, Verification

__all__ = ["verify"]

COARSE_TOLERANCE: Final = 0.1  # of a layer's range: what fp16 and int8 may be off before it is named


@dataclass(slots=True)
class _Seen:
    """What one side said about the images so far."""

    outputs: list[Outputs] = field(default_factory=list)
    detections: list[Detections] = field(default_factory=list)
    last_answer: Answer | None = None


def verify(
    request: VerifyRequest, *, stack: ExitStack, on_news: Callable[[str], None] = lambda _: None
) -> Verification:
    """Compare two subjects; `stack` closes the connections this opens.

    Both must be of one shape. Raises InputError for images that cannot be decoded, ServiceError for a server
    that gives no answer. That the numbers differ is no error here: the result's `failures` say so.
    """
    sides = (request.reference, request.candidate)
    params, pictures = request.decoding.params, request.pictures.items
    seen = (_Seen(), _Seen())
    sizes: list[tuple[int, int]] = []
    first: Pixels | None = None
    for number, picture in enumerate(pictures, start=1):
        on_news(f"image {number} of {len(pictures)}: {picture.name}")
        body = picture.read()
        pixels, size = _read(picture, body, params)
        sizes.append(size)
        first = pixels[None] if first is None else first
        for side, notes in zip(sides, seen, strict=True):
            _look(side, notes, body, pixels[None], size, params)
    tensors = _tensor_differences(request, *seen)
    images = tuple(
        ImageResult(name=picture.name, reference=ours, candidate=theirs, boxes=compare_boxes(ours, theirs))
        for picture, ours, theirs in zip(pictures, seen[0].detections, seen[1].detections, strict=True)
    )
    accuracy = _accuracy(request, seen, sizes)
    result = Verification(
        reference=request.reference,
        candidate=request.candidate,
        images=images,
        image_source=request.pictures.source,
        decoded_with=request.decoding.source,
        limits=request.limits,
        tensors=tensors,
        accuracy=accuracy,
        findings=(
            *_findings(tensors, images),
            *_units(sides),
            *(cautions(request.decoding.spec) if request.decoding.spec else ()),
            *request.pictures.notes,
            *(accuracy.notes if accuracy else ()),
        ),
    )
    if result.passed or first is None:
        return result
    on_news("looking for the first stage that diverges")
    return result.diverging_at(_diverging_stage(result, first, seen, params, stack=stack))


def _accuracy(
    request: VerifyRequest, seen: tuple[_Seen, _Seen], sizes: Sequence[tuple[int, int]]
) -> AccuracyChange | None:
    """Judge both sides over the images that have labels."""
    settings = request.pictures.accuracy
    known = [(index, picture.labels) for index, picture in enumerate(request.pictures.items) if picture.labels]
    if not known or settings is None:
        return None
    ours, theirs = (
        average_precision(
            [side.detections[index] for index, _ in known],
            [labels for _, labels in known],
            image_sizes=[sizes[index] for index, _ in known],
            settings=settings,
        )
        for side in seen
    )
    return AccuracyChange(reference=ours, candidate=theirs)


def _read(picture: Picture, body: bytes, params: DetectorParams) -> tuple[Pixels, tuple[int, int]]:
    try:
        return read_pixels(body, params)
    except ImageError as error:
        raise InputError(picture.name, "cannot be used", evidence=str(error)) from error


def _look(
    side: Subject, notes: _Seen, body: bytes, pixels: Pixels, size: tuple[int, int], params: DetectorParams
) -> None:
    if side.see is not None:
        outputs = side.see(pixels)
        notes.outputs.append(outputs)
        notes.detections.append(
            postprocess(outputs.coverage[0], outputs.bbox[0], params, image_size=size, boxes=outputs.boxes)
        )
    elif side.answer is not None:
        notes.last_answer = side.answer(body)
        notes.detections.append(notes.last_answer.detections)


def _tensor_differences(request: VerifyRequest, ours: _Seen, theirs: _Seen) -> tuple[TensorDifference, ...]:
    signatures = [side.signature for side in (request.reference, request.candidate) if side.signature]
    if not signatures or not ours.outputs or not theirs.outputs:
        return ()
    # Under the name of what is compared: boxes as soon as one side gives boxes.
    named = next((signature for signature in signatures if signature.gives_boxes), signatures[0])
    pairs = [_bbox_pair(*both, request.decoding.params) for both in zip(ours.outputs, theirs.outputs, strict=True)]
    return (
        compare_tensors(
            np.concatenate([outputs.coverage for outputs in ours.outputs]),
            np.concatenate([outputs.coverage for outputs in theirs.outputs]),
            name=named.coverage.name,
        ),
        compare_tensors(
            np.concatenate([pair[0] for pair in pairs]),
            np.concatenate([pair[1] for pair in pairs]),
            name=named.bbox.name,
        ),
    )


def _bbox_pair(ours: Outputs, theirs: Outputs, params: DetectorParams) -> tuple[Array, Array]:
    """Return both bbox grids as offsets, or, where a side gives boxes, as boxes seen from the centres of their cells.

    In units of the bbox scale: so a difference and a cosine are as large as those of the offsets they come from, and
    one limit serves for both. Boxes of the same bits stay of the same bits.
    """
    if ours.boxes == theirs.boxes == "offsets":
        return ours.bbox, theirs.bbox
    scale, centres = np.float32(params.bbox_scale), absolute_boxes(np.zeros_like(ours.bbox[0]), params)
    return (ours.in_pixels(params) - centres) / scale, (theirs.in_pixels(params) - centres) / scale


def _findings(tensors: Sequence[TensorDifference], images: Sequence[ImageResult]) -> tuple[str, ...]:
    found: list[str] = []
    if not any(image.boxes.expected or image.boxes.found for image in images):
        found.append("neither side found a box: pictures that show objects say more (--images)")
    if not tensors:
        found.append("an endpoint shows no tensors: only boxes were compared")
    return tuple(found)


def _units(sides: Sequence[Subject]) -> tuple[str, ...]:
    lean = [side.name for side in sides if side.signature and side.signature.gives_boxes]
    if not lean or not all(side.see for side in sides):
        return ()
    return (f"{' and '.join(lean)} decodes inside: boxes are compared, on the scale of offsets",)


def _diverging_stage(
    result: Verification,
    image: Pixels,
    seen: tuple[_Seen, _Seen],
    params: DetectorParams,
    *,
    stack: ExitStack,
) -> str:
    """Name the first stage that differs: a layer, a tensor, or what an endpoint does around its network."""
    reference, candidate = result.reference, result.candidate
    tolerance = result.limits.tensor_tolerance or COARSE_TOLERANCE
    if reference.path and candidate.path:
        layer = first_divergence(reference.path, candidate.path, image, tolerance=tolerance)
        if layer:
            return f"layer {layer}"
    for tensor in result.tensors:
        if not tensor.max_abs <= tolerance:
            return f"tensor {tensor.name}"
    if result.tensors:
        return "boxes"
    return _behind_endpoints(result, image, seen, tolerance, params, stack=stack)


def _behind_endpoints(
    result: Verification,
    image: Pixels,
    seen: tuple[_Seen, _Seen],
    tolerance: float,
    params: DetectorParams,
    *,
    stack: ExitStack,
) -> str:
    """Ask the Triton models behind endpoints: either the network differs, or what is done around it."""
    networks = [
        side if side.see else network_behind(side, notes.last_answer, stack=stack) if notes.last_answer else None
        for side, notes in zip((result.reference, result.candidate), seen, strict=True)
    ]
    if networks[0] is None or networks[1] is None or not networks[0].see or not networks[1].see:
        return "boxes"
    ours, theirs = networks[0].see(image), networks[1].see(image)
    if ours.coverage.shape != theirs.coverage.shape:
        return f"network on Triton: {networks[0].name} and {networks[1].name} have different shapes"
    bbox = _bbox_pair(ours, theirs, params)
    worst = max(np.abs(ours.coverage - theirs.coverage).max(), np.abs(bbox[0] - bbox[1]).max())
    if not worst <= tolerance:
        return f"network: {networks[0].name} and {networks[1].name} differ by {worst:.3g}"
    return "the endpoint's preprocessing or decoding: the network behind it gives the same tensors"
