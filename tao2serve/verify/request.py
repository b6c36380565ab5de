"""From what a user says to a verification: which settings decode the grids, and which pictures are looked at."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Final

from tao2serve.errors import UsageError
from tao2serve.export.local import neutral_picture
from tao2serve.export.signature import check_against_spec
from tao2serve.images import find_images, read_image
from tao2serve.registry.source import spec_beside
from tao2serve.runtime import ClassParams, DetectorParams
from tao2serve.tao.params import to_params
from tao2serve.tao.spec import read_spec
from tao2serve.values import ModelSignature
from tao2serve.verify.subjects import Subject, require_same_shapes
from tao2serve.verify.verify import Picture

__all__ = ["decoding_of", "pictures_of"]

# What TAO takes where a spec is silent.
BBOX_SCALE: Final = 35.0
BBOX_OFFSET: Final = 0.5
SYNTHETIC: Final = 3


def decoding_of(spec: Path | None, reference: Subject, candidate: Subject) -> tuple[DetectorParams, str]:
    """Return how grids become boxes, and where that comes from: `spec`, the one beside a model, or TAO's defaults.

    Raises InputError if the spec does not belong to the models, or they not to each other.
    """
    require_same_shapes(reference, candidate)
    signature = reference.signature or candidate.signature
    paths = [side.path for side in (reference, candidate) if side.path]
    chosen = spec or next((found for path in paths if (found := spec_beside(path))), None)
    if chosen is None:
        return _defaults(signature), "TAO's default settings, for want of an experiment spec"
    experiment = read_spec(chosen)
    if signature is not None:
        check_against_spec(signature, experiment, subject=reference.name if reference.signature else candidate.name)
    return DetectorParams.from_dict(to_params(experiment)), str(chosen)


def _defaults(signature: ModelSignature | None) -> DetectorParams:
    """Decode without a spec: the same for both sides, so it tells whether they agree, not what is in the picture."""
    channels, height, width = signature.input.shape if signature else (3, 544, 960)
    count = signature.class_count if signature else 1
    return DetectorParams(
        channels=channels,
        height=height,
        width=width,
        bbox_scale=BBOX_SCALE,
        bbox_offset=BBOX_OFFSET,
        classes=tuple(ClassParams(name=f"class {number}") for number in range(count)),
    )


def pictures_of(
    images: Path | None, params: DetectorParams, *, limit: int | None = None
) -> tuple[tuple[Picture, ...], str]:
    """Return the pictures to look at, and in words which they are; without a folder a few synthetic ones.

    Raises InputError if there is no image, UsageError for a limit below 1.
    """
    if limit is not None and limit < 1:
        raise UsageError("--limit", f"is {limit}, and at least one image is needed")
    if images is None:
        synthetic = [Picture(name=f"synthetic picture {n + 1}", read=_synthetic(params, n)) for n in range(SYNTHETIC)]
        return tuple(synthetic), f"{SYNTHETIC} synthetic pictures"
    found = find_images(images)
    chosen = found[:limit]
    words = f"{len(chosen)} pictures of {images}" + (
        f", the first of {len(found)}" if limit and limit < len(found) else ""
    )
    return tuple(Picture(name=str(path), read=partial(read_image, path)) for path in chosen), words


def _synthetic(params: DetectorParams, seed: int) -> Callable[[], bytes]:
    return partial(neutral_picture, params, seed=seed)
