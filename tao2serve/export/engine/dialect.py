"""What differs between TensorRT 8.6, 10 and 11; everything else is the same for all of them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from tao2serve.errors import ToolError

__all__ = ["Dialect", "dialect", "same_version", "version_numbers"]

OLDEST: Final = (8, 6)


@dataclass(frozen=True, slots=True, kw_only=True)
class Dialect:
    """How one TensorRT is told the precision that the ONNX file already carries."""

    network_flags: tuple[str, ...]  # members of NetworkDefinitionCreationFlag
    builder_flags: tuple[str, ...]  # members of BuilderFlag
    trtexec_options: tuple[str, ...]
    strongly_typed: bool


def dialect(version: str, precision: str) -> Dialect:
    """Choose by TensorRT's version. Raises ToolError for versions before 8.6, and for 9, which nobody installs.

    - 8.6 lets a layer use fp16 or int8 only where a flag allows it.
    - 10 takes the types from the network if it is created strongly typed; flags are then refused.
    - 11 has strongly typed networks only, and neither the flags nor the options.
    """
    numbers = version_numbers(version)
    if numbers[:2] < OLDEST or numbers[0] == 9:
        raise ToolError(f"TensorRT {version}", "is not supported", hint="use TensorRT 8.6, 10 or 11")
    if numbers[0] >= 11:
        return Dialect(network_flags=(), builder_flags=(), trtexec_options=(), strongly_typed=True)
    if numbers[0] == 10:
        return Dialect(
            network_flags=("STRONGLY_TYPED",),
            builder_flags=(),
            trtexec_options=("--stronglyTyped",),
            strongly_typed=True,
        )
    reduced = {"fp16": "FP16", "int8": "INT8"}.get(precision)
    return Dialect(
        network_flags=("EXPLICIT_BATCH",),
        builder_flags=(reduced,) if reduced else (),
        trtexec_options=(f"--{precision}",) if reduced else (),
        strongly_typed=False,
    )


def version_numbers(version: str) -> tuple[int, ...]:
    """Return the leading numbers of a version: (10, 13, 3, 9) for "10.13.3.9.post1"; () if there are none."""
    leading = re.match(r"\d+(?:\.\d+)*", version)
    return tuple(int(part) for part in leading.group().split(".")) if leading else ()


def same_version(one: str, other: str) -> bool:
    """Whether two versions agree as far as both go: the package says "8.6.1" where the plan says 8.6.1.6."""
    shared = list(zip(version_numbers(one), version_numbers(other), strict=False))
    return len(shared) >= 3 and all(a == b for a, b in shared)
