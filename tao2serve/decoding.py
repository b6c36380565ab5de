"""Raw grids of a network, kept in a .npz file, as detections."""

from __future__ import annotations

import json
import lzma
import struct
import tokenize
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from tao2serve.errors import InputError
from tao2serve.runtime import Detections, DetectorParams, postprocess_batch
from tao2serve.runtime.answer import predictions_of
from tao2serve.tao.params import to_params
from tao2serve.tao.reading import read_experiment
from tao2serve.tao.stride import fits_stride
from tao2serve.values import BOXES_OUTPUT

__all__ = ["DecodedImage", "RawGrids", "decode_grids", "params_from_file", "params_from_spec", "read_grids"]

Size: TypeAlias = tuple[int, int]
_Array: TypeAlias = NDArray[Any]

COVERAGE_NAMES: Final = ("output_cov/Sigmoid:0", "output_cov/Sigmoid", "output_cov")
BBOX_NAMES: Final = ("output_bbox/BiasAdd:0", "output_bbox/BiasAdd", "output_bbox", BOXES_OUTPUT)
SIZES_NAME: Final = "orig_sizes_wh"
_MAX_BYTES: Final = 256 << 20  # of one array; 1,000 images of 3 classes on a 34x60 grid are 122 MB
_MAX_MEMBERS: Final = 1_000
_MAX_PARAMS_BYTES: Final = 8 << 20
_MAX_SIDE: Final = 1 << 16  # of an image, in pixels
_MAX_STRIDE: Final = 1_024
# What zipfile and numpy raise for broken files: RuntimeError is an encrypted member, NotImplementedError a compression
# that zipfile does not know, TokenError and SyntaxError a header that ends within a bracket.
_DAMAGE: Final = (
    zipfile.BadZipFile, zlib.error, EOFError, LookupError, NotImplementedError, OverflowError, RuntimeError,
    SyntaxError, TypeError, ValueError, lzma.LZMAError, struct.error, tokenize.TokenError,
)  # fmt: skip
_OLD_FORMATS: Final = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class RawGrids:
    """What a network gave for N images: coverage (N, C, h, w), bbox (N, 4C, h, w), both float32.

    `gives_boxes`: bbox holds boxes in network pixels, which a graph decoded. `image_sizes`: (width, height) of the
    original images, None where the file does not say.
    """

    path: Path
    coverage: NDArray[np.float32]
    bbox: NDArray[np.float32]
    gives_boxes: bool
    image_sizes: tuple[Size, ...] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class DecodedImage:
    """The detections of one image, in pixels of `size` (width, height).

    `not_finite` is how many values of its "coverage" and "bbox" were NaN or infinite; such cells give no box.
    """

    size: Size
    detections: Detections
    not_finite: Mapping[str, int]

    def to_dict(self, params: DetectorParams) -> dict[str, Any]:
        """Return what an endpoint answers, without what only an endpoint knows, and what was not finite."""
        return {
            "image": {"width": self.size[0], "height": self.size[1]},
            "bbox_format": "xyxy",
            "predictions": predictions_of(self.detections, params),
            "not_finite": dict(self.not_finite),
        }


def params_from_spec(spec: Path, *, clustering: Path | None = None) -> DetectorParams:
    """Return how an experiment spec decodes, a clustering file lying over it. Raises InputError for either."""
    return DetectorParams.from_dict(to_params(read_experiment(spec, clustering=clustering)))


def params_from_file(path: Path) -> DetectorParams:
    """Read `params.json`, as `export` writes it. Raises InputError."""
    try:
        if path.exists() and not path.is_file():  # opening a pipe would wait for its writer
            raise InputError(str(path), "is not a file")
        with path.open("rb") as file:
            content = file.read(_MAX_PARAMS_BYTES + 1)
        document = json.loads(content) if 0 < len(content) <= _MAX_PARAMS_BYTES else None
    except OSError as error:
        raise InputError(str(path), "cannot be read", evidence=error.strerror or str(error)) from error
    except (ValueError, RecursionError) as error:
        raise InputError(str(path), "is not JSON", evidence=str(error)[:200]) from error
    if not isinstance(document, Mapping):
        raise InputError(str(path), "is not a params.json", hint="`tao2serve export` writes one beside the ONNX file")
    try:
        return DetectorParams.from_dict(document)
    except (ValueError, OverflowError) as error:
        raise InputError(str(path), "is not a params.json", evidence=str(error)[:200]) from error


def read_grids(path: Path) -> RawGrids:
    """Read a .npz file with coverage and bbox grids of one image or of several.

    Nothing is unpickled, and nothing is loaded before its declared size is known to be bearable. Raises InputError.
    """
    try:
        if path.exists() and not path.is_file():  # opening a pipe would wait for its writer
            raise InputError(str(path), "is not a file")
        with zipfile.ZipFile(path) as archive:
            names = _members(path, archive)
            coverage_name = _one_of(path, names, COVERAGE_NAMES)
            bbox_name = _one_of(path, names, BBOX_NAMES)
            coverage, bbox = (_read(path, archive, names[name]) for name in (coverage_name, bbox_name))
            sizes = _read(path, archive, names[SIZES_NAME]) if SIZES_NAME in names else None
    except OSError as error:
        raise InputError(str(path), "cannot be read", evidence=error.strerror or str(error)) from error
    except _DAMAGE as error:
        raise InputError(
            str(path), "is not a .npz file, or a damaged one", evidence=f"{type(error).__name__}: {str(error)[:200]}"
        ) from error
    coverage, bbox = (_as_batch(path, grid) for grid in (coverage, bbox))
    _require_same_grid(path, coverage, bbox)
    return RawGrids(
        path=path,
        coverage=coverage,
        bbox=bbox,
        gives_boxes=bbox_name == BOXES_OUTPUT,
        image_sizes=None if sizes is None else _sizes(path, sizes, count=len(coverage)),
    )


def decode_grids(
    grids: RawGrids, params: DetectorParams, *, image_size: Size | None = None
) -> tuple[DecodedImage, ...]:
    """Turn grids into detections in pixels of `image_size`, else of the sizes in the file, else of the network's input.

    Raises InputError if the grids do not belong to such a network.
    """
    _require_fit(grids, params)
    count = len(grids.coverage)
    sizes = (image_size,) * count if image_size else grids.image_sizes or ((params.width, params.height),) * count
    found = postprocess_batch(
        grids.coverage,
        grids.bbox,
        params,
        image_sizes=sizes,
        boxes="absolute" if grids.gives_boxes else "offsets",
    )
    return tuple(
        DecodedImage(
            size=size,
            detections=one,
            not_finite={"coverage": _not_finite(coverage), "bbox": _not_finite(bbox)},
        )
        for size, one, coverage, bbox in zip(sizes, found, grids.coverage, grids.bbox, strict=True)
    )


def _not_finite(grid: NDArray[np.float32]) -> int:
    return int(grid.size - np.count_nonzero(np.isfinite(grid)))


def _members(path: Path, archive: zipfile.ZipFile) -> dict[str, zipfile.ZipInfo]:
    """Return the arrays of the file by name."""
    members = archive.infolist()
    if len(members) > _MAX_MEMBERS:
        raise InputError(str(path), "holds too many arrays", evidence=f"{len(members):,}")
    return {member.filename.removesuffix(".npy"): member for member in members}


def _one_of(path: Path, names: Mapping[str, Any], wanted: tuple[str, ...]) -> str:
    found = [name for name in wanted if name in names]
    if len(found) != 1:
        raise InputError(
            str(path),
            f"has {'no' if not found else 'more than one'} array named like {wanted[0]}",
            evidence=f"it holds {', '.join(sorted(names)[:10]) or 'nothing'}",
            hint=f"one of {', '.join(wanted)}",
        )
    return found[0]


def _read(path: Path, archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> _Array:
    """Read one array whose header declares no more than it holds, and no more than is bearable."""
    with archive.open(member) as file:
        shape, dtype = _header(path, file, member.filename)
        declared = int(np.prod(shape, dtype=object)) * dtype.itemsize
        if declared > _MAX_BYTES or member.file_size > _MAX_BYTES + (1 << 16):
            raise InputError(
                str(path),
                f"declares too much in {member.filename}",
                evidence=f"{max(declared, member.file_size):,} bytes, and {_MAX_BYTES:,} are read",
            )
        if declared > member.file_size:
            raise InputError(str(path), f"ends within {member.filename}", evidence=f"{declared:,} bytes are declared")
    with archive.open(member) as file:
        return np.lib.format.read_array(file, allow_pickle=False)  # type: ignore[no-any-return, no-untyped-call]


def _header(path: Path, file: IO[bytes], name: str) -> tuple[tuple[int, ...], np.dtype[Any]]:
    """Return shape and type that the array's header declares; only numbers pass."""
    read = _OLD_FORMATS.get(np.lib.format.read_magic(file))  # type: ignore[no-untyped-call]
    if read is None:
        raise InputError(str(path), f"holds {name} in a format of names, not of numbers")
    shape, _, dtype = read(file)  # type: ignore[no-untyped-call]
    if dtype.kind not in "fiu" or dtype.itemsize > 8:
        raise InputError(str(path), f"holds no numbers in {name}", evidence=f"its type is {str(dtype)[:100]}")
    return tuple(int(side) for side in shape), dtype


def _as_batch(path: Path, grid: _Array) -> NDArray[np.float32]:
    if grid.dtype.kind != "f" or grid.ndim not in (3, 4) or not grid.size:
        raise InputError(
            str(path),
            "holds a grid that is none",
            evidence=f"shape {grid.shape}, type {grid.dtype}",
            hint="floating-point numbers (C, h, w) for one image, (N, C, h, w) for several",
        )
    with np.errstate(over="ignore"):  # what is too large for float32 becomes infinite, is counted and left out
        batch: NDArray[np.float32] = np.ascontiguousarray(grid, dtype=np.float32)
    return batch if batch.ndim == 4 else batch[None]


def _require_same_grid(path: Path, coverage: NDArray[np.float32], bbox: NDArray[np.float32]) -> None:
    images, classes, rows, columns = coverage.shape
    if bbox.shape != (images, 4 * classes, rows, columns):
        raise InputError(
            str(path),
            "holds coverage and bbox grids that do not belong together",
            evidence=f"coverage {coverage.shape}, bbox {bbox.shape}",
            hint="four bbox channels for each coverage channel",
        )


def _sizes(path: Path, sizes: _Array, *, count: int) -> tuple[Size, ...]:
    if sizes.shape == (2,):
        sizes = sizes[None]
    if sizes.dtype.kind not in "iu" or sizes.shape != (count, 2) or not ((sizes > 0) & (sizes <= _MAX_SIDE)).all():
        raise InputError(
            str(path),
            f"holds no image sizes in {SIZES_NAME}",
            evidence=f"shape {sizes.shape}, type {sizes.dtype}",
            hint=f"whole numbers ({count}, 2), width and height of each image, or --image-size WxH",
        )
    return tuple((int(width), int(height)) for width, height in sizes)


def _require_fit(grids: RawGrids, params: DetectorParams) -> None:
    """Hold the grids against the classes and the input size of the network."""
    classes, rows, columns = grids.coverage.shape[1:]
    if classes != len(params.classes):
        raise InputError(
            str(grids.path),
            f"holds {classes} classes, and the settings name {len(params.classes)}",
            evidence=", ".join(entry.name for entry in params.classes)[:200],
        )
    if not any(
        fits_stride(params.height, rows, stride) and fits_stride(params.width, columns, stride)
        for stride in range(1, _MAX_STRIDE + 1)
    ):
        raise InputError(
            str(grids.path),
            "does not fit the input size of the settings",
            evidence=f"a grid of {columns}x{rows} cells, an input of {params.width}x{params.height} pixels",
        )
