"""From what a user says to a verification: how grids become boxes, which pictures are looked at, and the limits."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Final

from tao2serve.config import Settings
from tao2serve.errors import UsageError
from tao2serve.export.evaluation import accuracy_settings
from tao2serve.export.lean import check_decoding
from tao2serve.export.local import neutral_picture
from tao2serve.export.signature import check_against_spec
from tao2serve.images import find_images, read_image
from tao2serve.parity.accuracy import AccuracySettings
from tao2serve.parity.labels import Labels, match_labels, read_labels
from tao2serve.registry.source import spec_beside
from tao2serve.runtime import ClassParams, DetectorParams
from tao2serve.tao.params import to_params
from tao2serve.tao.reading import read_experiment
from tao2serve.tao.spec import ExperimentSpec
from tao2serve.values import ModelSignature
from tao2serve.verify.subjects import Subject, require_same_shapes
from tao2serve.verify.verification import Limits

__all__ = [
    "Decoding",
    "Picture",
    "Pictures",
    "VerifyRequest",
    "decoding_of",
    "decoding_with",
    "default_decoding",
    "limits_for",
    "pictures_of",
]

# What TAO takes where a spec is silent.
BBOX_SCALE: Final = 35.0
BBOX_OFFSET: Final = 0.5
SYNTHETIC: Final = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Decoding:
    """How grids become boxes, and in words where that comes from; no accuracy without an experiment spec."""

    params: DetectorParams
    source: str
    spec: ExperimentSpec | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """One image to look at, as a client would send it, and what is really in it where that is known."""

    name: str
    read: Callable[[], bytes]
    labels: Labels | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Pictures:
    """The images to look at, and in words which they are and what they lack.

    `accuracy` says how detections are judged against the labels; None without labels.
    """

    items: Sequence[Picture]
    source: str
    notes: tuple[str, ...] = ()
    accuracy: AccuracySettings | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifyRequest:
    """What to compare, over which images, decoded how, and what still counts as the same."""

    reference: Subject
    candidate: Subject
    decoding: Decoding
    pictures: Pictures
    limits: Limits


def limits_for(reference: Subject, candidate: Subject, settings: Settings) -> Limits:
    """Return the limits of the coarser precision; what nobody states counts as float32 for tensors."""
    known = {reference.precision, candidate.precision} - {""}
    coarsest = next((name for name in ("int8", "fp16", "fp32") if name in known), "")
    return Limits(
        precision=coarsest,
        tensor_tolerance=settings.tensor_tolerance if coarsest in ("fp32", "") else None,
        matched_ratio=settings.matched_ratio_int8 if coarsest == "int8" else settings.matched_ratio,
    )


def decoding_of(
    reference: Subject, candidate: Subject, *, spec: Path | None = None, clustering: Path | None = None
) -> Decoding:
    """Take the settings of `spec`, of the one that lies beside a model, or TAO's defaults, in this order.

    A `clustering` file lies over them. Raises InputError if the spec does not belong to the models, or they not
    to each other; UsageError for a clustering file without a spec.
    """
    require_same_shapes(reference, candidate)
    if reference.kind == candidate.kind == "endpoint" and spec is None and clustering is None:
        return replace(default_decoding(None), source="the endpoints' own settings")
    paths = [side.path for side in (reference, candidate) if side.path]
    chosen = spec or next((found for path in paths if (found := spec_beside(path))), None)
    if chosen is None:
        if clustering is not None:
            raise UsageError("--clustering", "needs an experiment spec to lie over", hint="add: --spec FILE")
        return _without_spec(reference, candidate)
    experiment = read_experiment(chosen, clustering=clustering)
    for side in (reference, candidate):
        if side.signature is not None:
            check_against_spec(side.signature, experiment, subject=side.name)
        check_decoding(side.decoding, experiment, subject=side.name)
    return decoding_with(experiment)


def _without_spec(reference: Subject, candidate: Subject) -> Decoding:
    """Decode as a lean graph among the two does, else with TAO's defaults; of two that differ as the reference."""
    signatures = [side.signature for side in (reference, candidate) if side.signature]
    # The graph that takes a tensor also shows how many channels there are.
    decoding = default_decoding(
        next((x for x in signatures if not x.takes_pixels), signatures[0] if signatures else None)
    )
    inside = next((side for side in (reference, candidate) if side.decoding), None)
    if inside is None or inside.decoding is None:
        return decoding
    stated = inside.decoding
    params = replace(decoding.params, bbox_scale=stated.bbox_scale, bbox_offset=stated.bbox_offset)
    return replace(
        decoding, params=params, source=f"{decoding.source}, with the bbox scale and offset of {inside.name}"
    )


def decoding_with(experiment: ExperimentSpec) -> Decoding:
    """Return how an experiment spec decodes."""
    over = f", clustering of {experiment.clustering_file.path}" if experiment.clustering_file else ""
    return Decoding(
        params=DetectorParams.from_dict(to_params(experiment)),
        source=f"{experiment.path}{over}",
        spec=experiment,
    )


def default_decoding(signature: ModelSignature | None) -> Decoding:
    """Decode without a spec: the same for both sides, so it tells whether they agree, not what is in the picture."""
    channels, height, width = 3, 544, 960
    if signature:
        channels = 3 if signature.takes_pixels else signature.input.shape[0]
        height, width = signature.height, signature.width
    count = signature.class_count if signature else 1
    params = DetectorParams(
        channels=channels,
        height=height,
        width=width,
        bbox_scale=BBOX_SCALE,
        bbox_offset=BBOX_OFFSET,
        classes=tuple(ClassParams(name=f"class {number}") for number in range(count)),
    )
    return Decoding(params=params, source="TAO's default settings, for want of an experiment spec")


def pictures_of(
    images: Path | None, decoding: Decoding, *, labels: Path | None = None, limit: int | None = None
) -> Pictures:
    """Return the pictures of a folder, with their KITTI labels if there are; without a folder a few synthetic ones.

    Raises InputError if there is no image, or no label file for any; UsageError for a limit below 1, and for
    labels without images or without an experiment spec.
    """
    if limit is not None and limit < 1:
        raise UsageError("--limit", f"is {limit}, and at least one image is needed")
    if labels is not None and (images is None or decoding.spec is None):
        missing = "the pictures they are of: --images DIR" if images is None else "the experiment spec: --spec FILE"
        raise UsageError("--labels", "cannot be used alone", hint=f"give {missing}")
    if images is None:
        drawn = partial(neutral_picture, decoding.params)
        return Pictures(
            items=[Picture(name=f"synthetic picture {n + 1}", read=partial(drawn, seed=n)) for n in range(SYNTHETIC)],
            source=f"{SYNTHETIC} synthetic pictures",
        )
    found = find_images(images)
    chosen = found[:limit]
    source = f"{len(chosen)} picture{'s' * (len(chosen) != 1)} of {images}" + (
        f", of {len(found)}" if len(chosen) < len(found) else ""
    )
    folder = match_labels(chosen, labels) if labels is not None else None
    known = {image: read_labels(file) for image, file in folder.pairs} if folder else {}
    return Pictures(
        items=[Picture(name=str(path), read=partial(read_image, path), labels=known.get(path)) for path in chosen],
        source=source,
        notes=folder.notes if folder and limit is None else (),
        # Only now: a spec that says too little to judge by may still say enough to decode.
        accuracy=accuracy_settings(decoding.spec) if folder and decoding.spec else None,
    )
