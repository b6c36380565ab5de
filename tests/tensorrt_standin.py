"""A stand-in for the `tensorrt` package, which no machine without its libraries can load.

It builds nothing. It records what is called, and has only the names that the real bindings have: those in
tensorrt_names.json were read from NVIDIA's own wheels tensorrt_bindings 8.6.1, tensorrt_cu12_bindings 10.16.1.11 and
tensorrt_cu13_bindings 11.4.0.106 (their `dir()`, for the classes used here). What the names do is TensorRT's
documentation as we read it.
"""

# ruff: noqa: N802, N815  -- the names are NVIDIA's

from __future__ import annotations

import ctypes
import json
from collections.abc import Callable
from enum import IntEnum
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from plan_files import plan_bytes

NAMES: dict[str, Any] = json.loads(Path(__file__).with_name("tensorrt_names.json").read_text(encoding="utf-8"))
VERSIONS = tuple(sorted(NAMES, key=lambda version: int(version.split(".")[0])))


class Limited:
    """Lets through, to an object that plays a class of the package, the names that class really has."""

    def __init__(self, package: StandIn, kind: str, target: object) -> None:
        self.__dict__.update(_package=package, _kind=kind, _target=target)

    def __getattr__(self, name: str) -> Any:
        self._allow(name)
        return getattr(self._target, name)

    def __setattr__(self, name: str, value: Any) -> None:
        self._allow(name)
        self._package.calls.append((f"{self._kind}.{name}", (value,)))
        setattr(self._target, name, value)

    def _allow(self, name: str) -> None:
        if name not in NAMES[self._package.__version__]["classes"].get(self._kind, ()):
            raise AttributeError(f"{self._kind} of TensorRT {self._package.__version__} has no {name}")


class StandIn:
    """The package: `calls` is what was called, in order; the other public members say how it behaves."""

    def __init__(self, version: str, *, batch: int = -1) -> None:
        self.__version__ = version
        self.calls: list[tuple[str, tuple[Any, ...]]] = []
        self.batch = batch  # the network's batch dimension
        self.parse_errors: tuple[tuple[str, str], ...] = ()  # node, description
        self.error = ""  # what the build logs before it gives nothing
        self.good_caches: tuple[bytes, ...] = (b"",)
        self.during_build: Callable[[], None] = lambda: None
        self.has_gpu = True
        for name, members in NAMES[version]["enums"].items():
            if name != "ILogger":
                setattr(self, name, IntEnum(name, members))
        self.ILogger = type("ILogger", (), {"__init__": lambda _self: None, **NAMES[version]["enums"]["ILogger"]})
        if "IProgressMonitor" in NAMES[version]["classes"]:
            self.IProgressMonitor = type("IProgressMonitor", (), {"__init__": lambda _self: None})

    def called(self, name: str) -> list[tuple[Any, ...]]:
        return [arguments for called, arguments in self.calls if called == name]

    def note(self, name: str, *arguments: Any) -> None:
        self.calls.append((name, arguments))

    def Builder(self, logger: Any) -> Limited:
        if not self.has_gpu:  # seen with the real bindings over libraries that give null pointers
            logger.log(self.ILogger.ERROR, "CUDA initialization failure with error: 35")
            raise TypeError("pybind11::init(): factory function returned nullptr")
        return Limited(self, "Builder", _Builder(self, logger))

    def OnnxParser(self, _network: Any, _logger: Any) -> Limited:
        def parse(content: bytes, path: str) -> bool:
            self.note("OnnxParser.parse", content, path)
            return not self.parse_errors

        def get_error(index: int) -> Limited:
            node, words = self.parse_errors[index]
            return Limited(self, "ParserError", SimpleNamespace(node=lambda: node, desc=lambda: words))

        errors = SimpleNamespace(parse=parse, num_errors=len(self.parse_errors), get_error=get_error)
        return Limited(self, "OnnxParser", errors)


class _Builder:
    def __init__(self, package: StandIn, logger: Any) -> None:
        self._package = package
        self._logger = logger

    def create_network(self, flags: int) -> Limited:
        self._package.note("create_network", flags)
        source = SimpleNamespace(shape=(self._package.batch, 3, 32, 48), name="input_1:0")
        network = SimpleNamespace(get_input=lambda _index: Limited(self._package, "ITensor", source), num_inputs=1)
        return Limited(self._package, "INetworkDefinition", network)

    def create_builder_config(self) -> Limited:
        return Limited(self._package, "IBuilderConfig", _Config(self._package))

    def create_optimization_profile(self) -> Limited:
        profile = SimpleNamespace(set_shape=lambda *arguments: self._package.note("set_shape", *arguments))
        return Limited(self._package, "IOptimizationProfile", profile)

    def build_serialized_network(self, _network: Any, config: Limited) -> bytes | None:
        package = self._package
        monitor = getattr(config._target, "progress_monitor", None)
        if monitor is None:
            self._logger.log(package.ILogger.INFO, "Building an engine")
            package.during_build()
        else:
            monitor.phase_start("Building Engine", None, 3)
            for step in range(3):
                package.during_build()
                if not monitor.step_complete("Building Engine", step):
                    return None
            monitor.phase_finish("Building Engine")
        if package.error:
            self._logger.log(package.ILogger.ERROR, package.error)
            return None
        return plan_bytes(package.__version__)


class _Config:
    def __init__(self, package: StandIn) -> None:
        self._package = package
        self._cache: Any = None

    def set_flag(self, flag: IntEnum) -> None:
        self._package.note("set_flag", flag.name)

    def clear_flag(self, flag: IntEnum) -> None:
        self._package.note("clear_flag", flag.name)

    def set_memory_pool_limit(self, pool: IntEnum, size: int) -> None:
        self._package.note("set_memory_pool_limit", pool.name, size)

    def add_optimization_profile(self, _profile: Any) -> int:
        return 0

    def create_timing_cache(self, content: bytes) -> Any:
        self._package.note("create_timing_cache", content)
        cache = SimpleNamespace(serialize=lambda: b"timings", content=content)
        return Limited(self._package, "ITimingCache", cache)

    def set_timing_cache(self, cache: Limited, ignore_mismatch: bool) -> bool:
        assert ignore_mismatch is False
        if cache._target.content not in self._package.good_caches:
            return False
        self._cache = cache
        return True

    def get_timing_cache(self) -> Any:
        return self._cache


class RunningStandIn(StandIn):
    """The package's running half over memory of this process; coverage is each image's mean, bbox minus that.

    With `lean` its engine takes `pixels` in uint8 and gives `output_boxes`.
    """

    def __init__(
        self, version: str, *, profile: tuple[int, int, int] = (1, 4, 8), loads: bool = True, lean: bool = False
    ) -> None:
        super().__init__(version)
        self.profile, self.loads, self.lean = profile, loads, lean
        self.Logger = type("Logger", (), {"WARNING": 2, "__init__": lambda _self, _severity: None})

    def nptype(self, dtype: Any) -> type:
        return np.uint8 if dtype == "UINT8" else np.float32

    def Runtime(self, _logger: Any) -> Limited:
        def load(_content: bytes) -> Limited | None:
            return Limited(self, "ICudaEngine", _Engine(self)) if self.loads else None

        return Limited(self, "Runtime", SimpleNamespace(deserialize_cuda_engine=load))


class _Engine:
    def __init__(self, package: RunningStandIn) -> None:
        self.names = ("input_1:0", "output_bbox/BiasAdd:0", "output_cov/Sigmoid:0")
        if package.lean:
            self.names = ("pixels", "output_boxes", "output_cov/Sigmoid:0")
        source = (32, 48, 3) if package.lean else (3, 32, 48)
        self.shapes = dict(zip(self.names, (source, (8, 8, 12), (2, 8, 12)), strict=True))
        self._package = package
        self.num_io_tensors = len(self.names)

    def get_tensor_name(self, index: int) -> str:
        return self.names[index]

    def get_tensor_mode(self, name: str) -> Any:
        modes = self._package.TensorIOMode
        return modes.INPUT if name == self.names[0] else modes.OUTPUT

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return (-1, *self.shapes[name])

    def get_tensor_dtype(self, name: str) -> Any:
        return "UINT8" if name == "pixels" else self._package.DataType.FLOAT

    def get_tensor_profile_shape(self, name: str, _profile: int) -> list[tuple[int, ...]]:
        return [(batch, *self.shapes[name]) for batch in self._package.profile]

    def create_execution_context(self) -> Limited:
        return Limited(self._package, "IExecutionContext", _Context(self._package, self))


class _Context:
    def __init__(self, package: RunningStandIn, engine: _Engine) -> None:
        self._package, self._engine = package, engine
        self._addresses: dict[str, int] = {}
        self._batch = 0

    def set_input_shape(self, _name: str, shape: tuple[int, ...]) -> bool:
        least, _, most = self._package.profile
        self._batch = shape[0]
        self._package.note("set_input_shape", shape)
        return least <= shape[0] <= most

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return (self._batch, *self._engine.shapes[name])

    def set_tensor_address(self, name: str, address: int) -> bool:
        self._addresses[name] = address
        return True

    def execute_async_v3(self, _stream: int) -> bool:
        images, bbox, coverage = (self._array(name) for name in self._engine.names)
        means = images.mean(axis=(1, 2, 3)).reshape(-1, 1, 1, 1)
        coverage[:], bbox[:] = means, -means
        return True

    def _array(self, name: str) -> Any:
        shape = self.get_tensor_shape(name)
        size = int(np.prod(shape))
        kind = ctypes.c_uint8 if name == "pixels" else ctypes.c_float
        return np.ctypeslib.as_array((kind * size).from_address(self._addresses[name])).reshape(shape)


class CudaStandIn:
    """cuda-python's runtime bindings over memory of this process; `held` is what was not given back."""

    cudaError_t = IntEnum("cudaError_t", {"cudaSuccess": 0, "cudaErrorMemoryAllocation": 2, "cudaErrorNoDevice": 100})
    cudaMemcpyKind = IntEnum("cudaMemcpyKind", {"cudaMemcpyHostToDevice": 1, "cudaMemcpyDeviceToHost": 2})

    def __init__(self, *, devices: int = 1, room: int = 1 << 40) -> None:
        self.devices, self.room = devices, room
        self.held: dict[int, Any] = {}

    def cudaMalloc(self, size: int) -> tuple[Any, ...]:
        if size + sum(map(len, self.held.values())) > self.room:
            return self.cudaError_t.cudaErrorMemoryAllocation, None
        memory = ctypes.create_string_buffer(size)
        self.held[ctypes.addressof(memory)] = memory
        return self.cudaError_t.cudaSuccess, ctypes.addressof(memory)

    def cudaFree(self, address: int) -> tuple[Any, ...]:
        if not self.devices:
            return (self.cudaError_t.cudaErrorNoDevice,)
        self.held.pop(address, None)
        return (self.cudaError_t.cudaSuccess,)

    def cudaMemcpy(self, target: int, source: int, size: int, _kind: Any) -> tuple[Any, ...]:
        ctypes.memmove(target, source, size)
        return (self.cudaError_t.cudaSuccess,)

    def cudaStreamCreate(self) -> tuple[Any, ...]:
        self.held[-1] = "stream"
        return self.cudaError_t.cudaSuccess, 1

    def cudaStreamDestroy(self, _stream: Any) -> tuple[Any, ...]:
        self.held.pop(-1)
        return (self.cudaError_t.cudaSuccess,)

    def cudaStreamSynchronize(self, _stream: Any) -> tuple[Any, ...]:
        return (self.cudaError_t.cudaSuccess,)

    def cudaGetErrorString(self, status: Any) -> tuple[Any, ...]:
        return self.cudaError_t.cudaSuccess, f"words for {status.name}".encode()
