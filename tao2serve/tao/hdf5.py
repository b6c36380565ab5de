"""Read a TAO Keras HDF5 file into frozen values. Nothing is unpickled, nothing outside the file is opened.

Layout: docs/tao.md, Keras 2.2.4 `saving.py`. The settings are one JSON attribute; each
layer's arrays are listed, in order, by the `weight_names` attribute of its group.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from tao2serve.errors import InputError
from tao2serve.tao.flatten import flatten
from tao2serve.tao.hdf5_heaps import check_heaps
from tao2serve.tao.keras import KerasModel, Weight
from tao2serve.tao.source import sha256_of

__all__ = ["HDF5_MAGIC", "is_hdf5", "read_keras_hdf5"]

logger = logging.getLogger(__name__)

HDF5_MAGIC = b"\x89HDF\r\n\x1a\n"
_TAO_KERAS = "2.2.4"
_MAX_CONFIG_CHARS = 64 << 20
_MAX_LAYERS = 10_000
_MAX_WEIGHT_BYTES = 1_900_000_000  # an ONNX file is one protobuf message, which ends at 2 GiB
_MAX_GROWTH = 100  # Keras compresses nothing; a file of 1 MB may declare gigabytes that it does not hold


def is_hdf5(path: Path) -> bool:
    """Whether the file starts like an HDF5 file; False for anything unreadable."""
    try:
        with path.open("rb") as file:
            return file.read(len(HDF5_MAGIC)) == HDF5_MAGIC
    except OSError:
        return False


def read_keras_hdf5(path: Path) -> KerasModel:
    """Read a model saved by TAO's Keras.

    Raises InputError naming the file, and the layer where there is one, for a file that is missing, cut off,
    of another kind, or that tries to make us read outside itself.
    """
    if not path.is_file():
        raise InputError(str(path), "does not exist")
    if not is_hdf5(path):
        raise InputError(
            str(path),
            "is not an HDF5 file",
            evidence=f"first bytes: {_first_bytes(path)!r}",
            hint="give the .hdf5 file TAO wrote below <results>/weights",
        )
    digest = sha256_of(path)
    import h5py

    with _translated(path):
        check_heaps(path)
    # No lock: results often lie on read-only or network mounts, where HDF5 cannot take one.
    with _translated(path), h5py.File(path, "r", locking=False) as file:
        config, keras_version = _model_config(path, file)
        _check_origin(path, keras_version)
        weights = _read_weights(path, file)
        model = flatten(config, weights, path=path, sha256=digest, keras_version=keras_version)
    logger.info("read %s: %d layers, Keras %s", path.name, len(model.layers), keras_version)
    return model


def _first_bytes(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(8)
    except OSError:
        return b""


@contextmanager
def _translated(path: Path) -> Iterator[None]:
    """Turn whatever h5py, json and numpy raise on a damaged file into an InputError."""
    try:
        yield
    except InputError:
        raise
    except MemoryError as error:
        raise InputError(str(path), "does not fit in memory") from error
    except Exception as error:  # h5py raises OSError, KeyError, ValueError, RuntimeError, TypeError … by damage
        raise InputError(
            str(path),
            "cannot be read as a Keras HDF5 file",
            evidence=f"{type(error).__name__}: {str(error)[:300]}",
            hint="the file may be cut off; compare its size with the one on the training machine",
        ) from error


def _model_config(path: Path, file: Any) -> tuple[dict[str, Any], str]:
    """Return the parsed `model_config` and the Keras version."""
    if "model_config" not in file.attrs:
        raise InputError(
            str(path),
            "is an HDF5 file without a Keras model in it",
            evidence=f"attributes: {sorted(file.attrs)[:10]}, groups: {sorted(file)[:10]}",
            hint="weights alone are not enough: give a file saved with its graph (Model.save)",
        )
    text = _text(file.attrs["model_config"])
    if len(text) > _MAX_CONFIG_CHARS:
        raise InputError(str(path), "has an oversized model_config", evidence=f"{len(text)} characters")
    try:
        config = json.loads(text)
        json.dumps(config, ensure_ascii=False).encode()  # half a surrogate pair can go into no ONNX name
    except (ValueError, RecursionError) as error:
        raise InputError(str(path), "has a model_config that is not JSON", evidence=str(error)[:300]) from error
    if not isinstance(config, dict):
        raise InputError(str(path), "has a model_config that is not a Keras model", evidence=text[:100])
    return config, _text(file.attrs.get("keras_version", "unknown"))


def _check_origin(path: Path, keras_version: str) -> None:
    """Refuse Keras 3, whose graph is written in another way; warn where the padding rules may not be TAO's."""
    if keras_version.partition(".")[0].isdecimal() and int(keras_version.partition(".")[0]) > 2:
        raise InputError(
            str(path),
            f"was saved by Keras {keras_version[:20]}, not by TAO",
            evidence=f"TAO's files say keras_version {_TAO_KERAS}",
            hint="give the .hdf5 file TAO wrote below <results>/weights",
        )
    if keras_version != _TAO_KERAS:
        logger.warning(
            "%s was saved by Keras %s, TAO's is %s: its padding is read as TAO's, which may not be what it was"
            " trained with",
            path.name,
            keras_version[:20],
            _TAO_KERAS,
        )


def _text(value: object) -> str:
    """h5py gives str or bytes by its version and by how the attribute was written."""
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    return str(value).encode("utf-8", "replace").decode()


def _read_weights(path: Path, file: Any) -> dict[str, tuple[Weight, ...]]:
    """Return each layer group's weights, in the order of its `weight_names`."""
    root = _child(path, file, "model_weights")
    names = _names(root, "layer_names") or list(root)
    if len(names) > _MAX_LAYERS:
        raise InputError(str(path), f"has more than {_MAX_LAYERS} layers")
    found: dict[str, tuple[Weight, ...]] = {}
    left = min(_MAX_WEIGHT_BYTES, _MAX_GROWTH * path.stat().st_size)
    for name in names:
        group = _child(path, root, name)
        layer: list[Weight] = []
        for weight_name in _names(group, "weight_names"):
            values = _array(path, name, _child(path, group, weight_name), left)
            left -= values.nbytes
            layer.append(Weight(name=weight_name, values=values))
        found[name] = tuple(layer)
    return found


def _names(group: Any, key: str) -> list[str]:
    """Return a list of names; Keras cuts one of more than 64 KiB into `<key>0`, `<key>1` and so on."""
    if key in group.attrs:
        return [_text(name) for name in group.attrs[key]]
    found: list[str] = []
    for part in range(_MAX_LAYERS):
        if f"{key}{part}" not in group.attrs:
            break
        found += [_text(name) for name in group.attrs[f"{key}{part}"]]
    return found


def _child(path: Path, group: Any, name: str) -> Any:
    """Follow `name` below `group` by hard links only: soft and external links could lead anywhere."""
    import h5py

    node = group
    for part in name.split("/"):
        if not part or part == "." or not isinstance(node, h5py.Group) or part not in node:
            raise InputError(str(path), f"has no {name} below {group.name}", hint="the file may be cut off")
        if not isinstance(node.get(part, getlink=True), h5py.HardLink):
            raise InputError(str(path), f"{name} below {group.name} is a link, not a member of the file")
        node = node[part]
    return node


def _array(path: Path, layer: str, dataset: Any, limit_bytes: int) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Read one weight as read-only float32; refuse what would read outside the file or fill the memory."""
    import h5py

    subject = f"{path}: layer {layer}"
    if not isinstance(dataset, h5py.Dataset) or dataset.shape is None:
        raise InputError(subject, "has a weight that is not an array", evidence=str(dataset.name))
    if dataset.external or dataset.is_virtual:
        raise InputError(subject, "has a weight kept in another file", evidence=str(dataset.name))
    if dataset.dtype.kind != "f":
        raise InputError(
            subject, "has a weight that is not floating point", evidence=f"{dataset.name}: {dataset.dtype}"
        )
    size = 4 * int(np.prod(dataset.shape, dtype=object))
    if size > limit_bytes or len(dataset.shape) > 8:
        raise InputError(
            subject,
            "has more weights than its file or an ONNX file can hold",
            evidence=f"{dataset.name} is {dataset.shape}",
        )
    values = np.asarray(dataset[()], dtype=np.float32, order="C")  # keeps a scalar a scalar
    if not np.isfinite(values).all():
        raise InputError(
            subject,
            "has weights that are not finite numbers",
            evidence=str(dataset.name),
            hint="training diverged, or the file is damaged",
        )
    values.setflags(write=False)
    return values
