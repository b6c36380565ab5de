"""NVIDIA's subtasks of detectnet_v2 as values: which words each is given, and in which of its containers it runs.

Options are those of tao_tensorflow1_backend's and tao_deploy's own parsers (TAO 5.0). A Path among the arguments is one
of this machine, and becomes the container's path of the same file.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, TypeAlias

from tao2serve.errors import UsageError

__all__ = [
    "IMAGES",
    "EngineOptions",
    "Group",
    "PruneOptions",
    "Subtask",
    "evaluate",
    "export",
    "gen_trt_engine",
    "prune",
    "train",
]

Group: TypeAlias = Literal["model", "deploy"]
NETWORK: Final = "detectnet_v2"
#: What nvidia-tao 6.26.3 maps detectnet_v2 to, in its two groups.
IMAGES: Final[dict[Group, str]] = {
    "model": "nvcr.io/nvidia/tao/tao-toolkit:5.0.0-tf1.15.5",
    "deploy": "nvcr.io/nvidia/tao/tao-toolkit:6.26.3-deploy",
}
_MODULES: Final[dict[Group, str]] = {  # what `detectnet_v2 SUBTASK` runs
    "model": "nvidia_tao_tf1.cv.{network}.scripts.{name}",
    "deploy": "nvidia_tao_deploy.cv.{network}.scripts.{name}",
}
# Options of the command detectnet_v2 itself, which a module that is run with a key never sees.
_COMMANDS_OWN: Final = frozenset(
    {"--gpu_index", "--num_processes", "-np", "--log_file", "--use_amp", "--gpus", "--multi-node", "--mpirun-arg"}
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Subtask:
    """One subtask and its words, without the key."""

    name: str  # as NVIDIA has it: train, prune, evaluate, export, gen_trt_engine
    arguments: tuple[str | Path, ...]
    group: Group = "model"
    network: str = NETWORK
    gpus: int = 1
    amp: bool = False

    @property
    def module(self) -> str:
        return _MODULES[self.group].format(network=self.network, name=self.name)

    @property
    def title(self) -> str:
        return f"tao {self.network} {self.name}"

    def words(self, arguments: tuple[str, ...], *, has_key: bool, key: str = "***") -> tuple[str, ...]:
        """Return the command as it is typed in the container; of a key no more than that there is one."""
        own: tuple[str, ...] = ("--gpus", str(self.gpus)) if self.gpus > 1 else ()
        if self.amp:
            own = (*own, "--use_amp")
        return (self.network, self.name, *arguments, *own, *(("-k", key) if has_key else ()))

    def require_shown_options(self, *, has_key: bool) -> None:
        """Raise UsageError for an option that would get lost where a key keeps detectnet_v2 itself from being run."""
        lost = [word for word in self.arguments if isinstance(word, str) and word.partition("=")[0] in _COMMANDS_OWN]
        if has_key and lost:
            raise UsageError(
                lost[0],
                "is an option of NVIDIA's command detectnet_v2, which would show the key to all who may list processes",
                hint="give --gpus and --amp to tao2serve, before `--`; leave the others out, or the key",
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class PruneOptions:
    """NVIDIA's own defaults but for the criterion: its notebook has `union`, and so has its parser."""

    threshold: float = 0.1
    equalization: str = "union"
    granularity: int = 8
    minimum_filters: int = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineOptions:
    """Options of gen_trt_engine; None leaves NVIDIA's default."""

    data_type: str = "fp32"
    min_batch_size: int | None = None
    opt_batch_size: int | None = None
    max_batch_size: int | None = None
    cal_image_dir: Path | None = None
    cal_cache_file: Path | None = None
    cal_json_file: Path | None = None
    batch_size: int | None = None
    batches: int | None = None


def train(
    spec: Path, *, results: Path, name: str, gpus: int = 1, amp: bool = False, more: tuple[str, ...] = ()
) -> Subtask:
    """Train, or retrain what the spec names as pretrained; `results`/weights/`name`.hdf5 is written last."""
    return Subtask(name="train", arguments=("-e", spec, "-r", results, "-n", name, *more), gpus=gpus, amp=amp)


def prune(model: Path, *, output: Path, results: Path, options: PruneOptions, more: tuple[str, ...] = ()) -> Subtask:
    """Prune into a file whose name ends in .hdf5: NVIDIA's code would append that."""
    return Subtask(
        name="prune",
        arguments=(
            *_pairs(("-m", model), ("-o", output), ("--results_dir", results)),
            *("-eq", options.equalization, "-pth", f"{options.threshold:g}"),
            *("-pg", str(options.granularity), "-nf", str(options.minimum_filters)),
            *more,
        ),
    )


def evaluate(model: Path, *, spec: Path, results: Path, more: tuple[str, ...] = ()) -> Subtask:
    """Evaluate on the spec's validation data. It writes a status.json anew: `results` must not be a training's."""
    return Subtask(name="evaluate", arguments=("-e", spec, "-m", model, "-r", results, *more))


def export(model: Path, *, spec: Path, output: Path, results: Path, more: tuple[str, ...] = ()) -> Subtask:
    """Export to ONNX by the route that gives the right numbers (docs/tao.md); refuses an output that is there."""
    return Subtask(
        name="export",
        arguments=("-m", model, "-o", output, "-e", spec, "--onnx_route", "tf2onnx", "--results_dir", results, *more),
    )


def gen_trt_engine(
    model: Path, *, spec: Path, results: Path, engine: Path, options: EngineOptions, more: tuple[str, ...] = ()
) -> Subtask:
    """Build a TensorRT plan of an ONNX file, in NVIDIA's deploy container."""
    optional = {
        "--min_batch_size": options.min_batch_size,
        "--opt_batch_size": options.opt_batch_size,
        "--max_batch_size": options.max_batch_size,
        "--cal_image_dir": options.cal_image_dir,
        "--cal_cache_file": options.cal_cache_file,
        "--cal_json_file": options.cal_json_file,
        "--batch_size": options.batch_size,
        "--batches": options.batches,
    }
    given: list[str | Path] = []
    for option, value in optional.items():
        if value is not None:
            given += [option, value if isinstance(value, Path) else str(value)]
    return Subtask(
        name="gen_trt_engine",
        group="deploy",
        arguments=(
            *_pairs(("-m", model), ("-e", spec), ("-r", results), ("--engine_file", engine)),
            *("--data_type", options.data_type),
            *given,
            *more,
        ),
    )


def _pairs(*pairs: tuple[str, str | Path]) -> tuple[str | Path, ...]:
    return tuple(word for pair in pairs for word in pair)
