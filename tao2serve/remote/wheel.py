"""A wheel of this very installation: what runs elsewhere is what runs here, released or not."""

from __future__ import annotations

import base64
import hashlib
import zipfile
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Final

import tao2serve
from tao2serve.remote.bootstrap import package_files

__all__ = ["EXTRAS", "extras_here", "write_wheel"]

_WHEEL: Final = "Wheel-Version: 1.0\nGenerator: tao2serve\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
_WRITTEN: Final = (1980, 1, 1, 0, 0, 0)  # the same content is the same file, whenever it is made
# By what tells that they are here: what a command finds here it must find there.
EXTRAS: Final = {"loadtest": "locust", "fast": "cv2", "s3": "boto3", "gs": "google.cloud.storage", "azure": "azure"}


def write_wheel(folder: Path) -> Path:
    """Write the wheel into `folder` and return it; nothing is built, so it needs no build tool and no index."""
    distribution = metadata.distribution("tao2serve")
    name = f"tao2serve-{distribution.version}"
    package = Path(tao2serve.__file__).parent
    contents = {
        f"tao2serve/{file.relative_to(package).as_posix()}": file.read_bytes() for file in package_files(package)
    }
    information = f"{name}.dist-info"
    contents[f"{information}/METADATA"] = (distribution.read_text("METADATA") or "").encode()
    contents[f"{information}/WHEEL"] = _WHEEL.encode()
    contents[f"{information}/entry_points.txt"] = (distribution.read_text("entry_points.txt") or "").encode()
    record = [f"{path},sha256={_hash(content)},{len(content)}" for path, content in contents.items()]
    contents[f"{information}/RECORD"] = ("\n".join([*record, f"{information}/RECORD,,"]) + "\n").encode()
    path = folder / f"{name}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for member, content in contents.items():
            archive.writestr(zipfile.ZipInfo(member, _WRITTEN), content, zipfile.ZIP_DEFLATED)
    return path


def extras_here() -> tuple[str, ...]:
    """Return the extras that are installed here, without those of the sandbox and of development."""
    return tuple(extra for extra, module in EXTRAS.items() if _is_here(module))


def _is_here(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:  # a parent package is missing
        return False


def _hash(content: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
