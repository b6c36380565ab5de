"""The seam between us and TensorRT: whoever can turn a request into the bytes of a plan."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, Protocol, TypeAlias

from tao2serve.export.engine.request import EngineRequest

__all__ = ["BuilderName", "EngineBuilder", "News"]

News: TypeAlias = Callable[[str], None]  # told in one line what the build is doing; may be called often
BuilderName: TypeAlias = Literal["tensorrt", "trtexec"]


class EngineBuilder(Protocol):
    """Builds one engine at a time."""

    @property
    def name(self) -> BuilderName: ...

    @property
    def version(self) -> str:
        """TensorRT's version, such as "10.16.1.11"; the last number is not always told."""

    def build(self, request: EngineRequest, *, on_news: News) -> bytes:
        """Return the plan. Raises ToolError with TensorRT's own last words if it cannot be built."""
