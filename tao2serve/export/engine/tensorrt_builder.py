"""Build an engine in this process, with the `tensorrt` Python package.

The calls are those that the packages 8.6.1, 10.16.1 and 11.4.0 offer; what differs is in dialect.py.
"""

from __future__ import annotations

import logging
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from tao2serve.errors import InputError, ToolError
from tao2serve.export.atomic import write_atomically
from tao2serve.export.engine.builder import BuilderName, News
from tao2serve.export.engine.dialect import dialect
from tao2serve.export.engine.request import EngineRequest

__all__ = ["TensorRTBuilder"]

logger = logging.getLogger(__name__)

_SHOWN_ERRORS: Final = 20
_LARGEST_CACHE: Final = 1 << 30


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorRTBuilder:
    """Builds with an imported `tensorrt` package; see find.py."""

    module: Any

    @property
    def name(self) -> BuilderName:
        return "tensorrt"

    @property
    def version(self) -> str:
        return str(self.module.__version__)

    def build(self, request: EngineRequest, *, on_news: News) -> bytes:
        """Return the plan. Raises InputError for an ONNX file TensorRT cannot read, ToolError if it fails.

        An interrupt ends the build at TensorRT's next step; 8.6 has no steps and first finishes.
        """
        trt = self.module
        rules = dialect(self.version, request.artifact.precision)
        watch = _Watch(on_news=on_news)
        try:
            trt_logger = _logger(trt, watch)
            builder = _made(trt.Builder, trt_logger)
            flags = sum(1 << int(getattr(trt.NetworkDefinitionCreationFlag, name)) for name in rules.network_flags)
            network = _made(builder.create_network, flags)
            # The parser owns the weights that the network refers to, and has to outlive the build.
            parser = _parsed(trt, network, trt_logger, request)
            _check_input(network, request)
            config = _config(trt, builder, request, rules.builder_flags, watch)
            plan = builder.build_serialized_network(network, config)
        except RuntimeError as error:  # pybind11's for whatever TensorRT throws, and that of _made
            watch.raise_stop()
            raise ToolError(
                f"TensorRT {self.version}", "failed", evidence=f"{str(error)[:500]}\n{watch.last_words()}".strip()
            ) from error
        watch.raise_stop()
        if plan is None:
            raise ToolError(str(request.artifact.path), "could not be built by TensorRT", evidence=watch.last_words())
        content = bytes(memoryview(plan))
        _keep_timings(config, request.timing_cache)
        del parser
        return content


@dataclass(slots=True, kw_only=True)
class _Watch:
    """What TensorRT says while it builds, from whichever of its threads; and whether it is to stop.

    An exception must not leave a callback: TensorRT's bindings swallow it. It is kept, ends the build at the next
    step, and is raised afterwards.
    """

    on_news: News
    errors: deque[str] = field(default_factory=lambda: deque(maxlen=_SHOWN_ERRORS))
    stop: BaseException | None = None

    def tell(self, line: str) -> None:
        if self.stop is None:
            try:
                self.on_news(line)
            except BaseException as error:  # KeyboardInterrupt too; raised by raise_stop
                self.stop = error

    def raise_stop(self) -> None:
        if self.stop is not None:
            raise self.stop

    def last_words(self) -> str:
        return "\n".join(self.errors)


def _made(kind: Any, *arguments: Any) -> Any:
    """Create one of TensorRT's objects. Raises RuntimeError: pybind11 turns a null pointer into a TypeError."""
    try:
        made = kind(*arguments)
    except TypeError as error:
        raise RuntimeError(f"{kind.__name__} could not be created; is a GPU here?") from error
    if made is None:
        raise RuntimeError(f"{kind.__name__} could not be created")
    return made


def _logger(trt: Any, watch: _Watch) -> Any:
    severe = (trt.ILogger.INTERNAL_ERROR, trt.ILogger.ERROR)
    has_steps = hasattr(trt, "IProgressMonitor")

    class Logger(trt.ILogger):  # type: ignore[misc]  # TensorRT takes nothing but a subclass of its own
        def __init__(self) -> None:
            trt.ILogger.__init__(self)

        def log(self, severity: Any, message: str) -> None:
            if severity in severe:
                watch.errors.append(message)
            if severity == trt.ILogger.INFO and not has_steps:
                watch.tell(message)
            level = logging.WARNING if severity == trt.ILogger.WARNING or severity in severe else logging.DEBUG
            logger.log(level, "TensorRT: %s", message)

    return Logger()


def _monitor(trt: Any, watch: _Watch) -> Any:
    class Monitor(trt.IProgressMonitor):  # type: ignore[misc]  # as above
        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)
            self._steps: dict[str, int] = {}

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            self._steps[phase_name] = num_steps
            watch.tell(phase_name)

        def step_complete(self, phase_name: str, step: int) -> bool:
            watch.tell(f"{phase_name}: {step + 1} of {self._steps.get(phase_name, '?')}")
            return watch.stop is None

        def phase_finish(self, phase_name: str) -> None:
            self._steps.pop(phase_name, None)

    return Monitor()


def _parsed(trt: Any, network: Any, trt_logger: Any, request: EngineRequest) -> Any:
    """Read the ONNX file into the network and return the parser. Raises InputError with all that it complains of."""
    path = request.artifact.path
    parser = _made(trt.OnnxParser, network, trt_logger)
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InputError(str(path), "cannot be read", evidence=error.strerror or str(error)) from error
    if parser.parse(content, str(path)):  # the path is for weights that lie beside the model
        return parser
    complaints = [parser.get_error(index) for index in range(parser.num_errors)]
    lines = [f"node {complaint.node()}: {complaint.desc()}" for complaint in complaints[:_SHOWN_ERRORS]]
    if len(complaints) > _SHOWN_ERRORS:
        lines.append(f"and {len(complaints) - _SHOWN_ERRORS} more")
    raise InputError(str(path), "cannot be read by TensorRT", evidence="\n".join(lines))


def _check_input(network: Any, request: EngineRequest) -> None:
    """Raise InputError unless the network has our one input, open or of the wanted size in its batch dimension."""
    tensor = network.get_input(0)
    batch = tensor.shape[0]
    if batch != -1 and set(request.batches) != {batch}:
        raise InputError(
            str(request.artifact.path),
            f"has a fixed batch size of {batch}",
            evidence="wanted min {}, opt {}, max {}".format(*request.batches),
            hint=f"ask for {batch}, {batch}, {batch}, or export the model with an open batch size",
        )


def _config(trt: Any, builder: Any, request: EngineRequest, flags: tuple[str, ...], watch: _Watch) -> Any:
    config = _made(builder.create_builder_config)
    config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, request.workspace_bytes)
    config.clear_flag(trt.BuilderFlag.TF32)  # on by default, and 10 bits of mantissa are not fp32
    for name in flags:
        config.set_flag(getattr(trt.BuilderFlag, name))
    if request.ampere_plus:
        config.hardware_compatibility_level = trt.HardwareCompatibilityLevel.AMPERE_PLUS
    profile = builder.create_optimization_profile()
    profile.set_shape(request.artifact.signature.input.name, *request.shapes)
    if config.add_optimization_profile(profile) == -1:
        raise ToolError("TensorRT", "refuses the optimisation profile", evidence=watch.last_words())
    if hasattr(trt, "IProgressMonitor"):
        config.progress_monitor = _monitor(trt, watch)
    if request.timing_cache is not None:
        _use_timings(config, request.timing_cache, watch)
    return config


def _use_timings(config: Any, path: Path, watch: _Watch) -> None:
    """Attach the timing cache; one of another GPU or TensorRT is left aside, and replaced after the build."""
    content = b""
    try:
        if path.exists() and path.stat().st_size <= _LARGEST_CACHE:
            content = path.read_bytes()
    except OSError as error:
        raise InputError(str(path), "cannot be read", evidence=error.strerror or str(error)) from error
    cache = config.create_timing_cache(content)
    if cache is not None and config.set_timing_cache(cache, False):
        return
    watch.tell(f"{path.name} is not a timing cache for this GPU and TensorRT; starting a new one")
    watch.errors.clear()  # TensorRT's complaint about the cache is no reason for what may fail later
    config.set_timing_cache(config.create_timing_cache(b""), False)


def _keep_timings(config: Any, path: Path | None) -> None:
    cache = config.get_timing_cache() if path is not None else None
    if path is not None and cache is not None:
        write_atomically(path, bytes(memoryview(cache.serialize())))
