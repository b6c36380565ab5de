"""`tao2serve tao`: NVIDIA's DetectNet_v2 subtasks, by its launcher, by Docker, or inside its container."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Annotated

import typer

from tao2serve.cli.help import Command
from tao2serve.cli.options import one_of
from tao2serve.cli.tao_job import require_file, require_name, require_no_key, require_no_training, run_one
from tao2serve.cli.tao_options import Common, More, prepare, with_common
from tao2serve.cli.tao_run import run
from tao2serve.errors import InputError, UsageError

app = typer.Typer(
    rich_markup_mode=None,
    no_args_is_help=True,
    help="Train, prune, evaluate and export with NVIDIA TAO, tracked in ClearML.\n\n"
    "Example: tao2serve tao run experiment_spec.txt --results results",
)

TrainSpec = Annotated[Path, typer.Argument(metavar="SPEC", help="Experiment spec of the training.")]
Model = Annotated[Path, typer.Argument(metavar="MODEL", help="A .hdf5 file, or an encrypted .tlt with its key.")]
ModelSpec = Annotated[Path, typer.Option("--spec", metavar="FILE", help="Experiment spec the model was trained with.")]
Results = Annotated[Path, typer.Option("--results", "-r", metavar="DIR", help="Folder that TAO writes into.")]
Name = Annotated[str, typer.Option("--name", "-n", metavar="NAME", help="Name of the model's file, without .hdf5.")]
Gpus = Annotated[int, typer.Option("--gpus", metavar="N", min=1, max=64, help="GPUs to train on.")]
Amp = Annotated[bool, typer.Option("--amp", help="Train in automatic mixed precision.")]
CRITERIA = ("union", "intersection", "arithmetic_mean", "geometric_mean")
DATA_TYPES = ("fp32", "fp16", "int8")


@app.command(cls=Command, short_help="Train a detector.")
@with_common(trains=True)
def train(
    spec: TrainSpec,
    results: Results,
    more: More = None,
    name: Name = "model",
    gpus: Gpus = 1,
    amp: Amp = False,
    *,
    common: Common,
) -> None:
    """Train a detector, tracked in ClearML if the spec asks for it, its models uploaded.

    Cut short, it goes on from TAO's last checkpoint when it is run again.

    Example: tao2serve tao train experiment_spec.txt --results results/unpruned --mount ~/data:/workspace/data
    """
    _train(spec, results, tuple(more or ()), name=name, gpus=gpus, amp=amp, common=common)


@app.command(cls=Command, short_help="Retrain a pruned detector.")
@with_common(trains=True)
def retrain(
    spec: TrainSpec,
    results: Results,
    more: More = None,
    model: Annotated[
        Path | None,
        typer.Option("--model", metavar="FILE", help="The pruned model; the spec then becomes one that loads it."),
    ] = None,
    name: Name = "model",
    gpus: Gpus = 1,
    amp: Amp = False,
    *,
    common: Common,
) -> None:
    """Retrain a pruned detector: the training of a spec that loads a model with its graph.

    With --model such a spec is made of the one given, and kept in the results folder.

    Example: tao2serve tao retrain experiment_spec.txt --model pruned.hdf5 --results results/retrain
    """
    if model is None:
        _require_loads(spec)
        _train(spec, results, tuple(more or ()), name=name, gpus=gpus, amp=amp, common=common)
        return
    require_file(spec)
    require_file(model)
    made = results / "experiment_spec_retrain.txt"
    with tempfile.TemporaryDirectory(prefix="tao2serve-spec-") as folder:
        checked = Path(folder) / made.name
        checked.write_text(_loading(spec, model, common), encoding="utf-8", newline="")
        _train(
            made, results, tuple(more or ()), name=name, gpus=gpus, amp=amp, common=common,
            pruned=model, checked=checked,
        )  # fmt: skip


def _require_loads(spec: Path) -> None:
    from tao2serve.tao.spec import read_spec

    read = read_spec(spec)
    if read.model is None or not read.model.load_graph:
        raise InputError(
            str(spec), "does not load a pruned model", evidence="model_config.load_graph is not true",
            hint="give --model FILE, or a spec with load_graph: true and pretrained_model_file",
        )  # fmt: skip


def _loading(spec: Path, model: Path, common: Common) -> str:
    """Return the text of a spec that loads the pruned model, under the path that the container has for it."""
    from tao2serve.tao.mounts import reach
    from tao2serve.tao.retraining import retraining_spec

    place = prepare(common, spec_to_track=None).place
    pruned = model.resolve() if place.way == "inside" else reach(place.mounts, model)[1]
    return retraining_spec(spec, pruned=str(pruned))


def _train(
    spec: Path,
    results: Path,
    more: tuple[str, ...],
    *,
    name: str,
    gpus: int,
    amp: bool,
    common: Common,
    pruned: Path | None = None,
    checked: Path | None = None,
) -> None:
    from tao2serve.tao import subtask

    require_no_key(more)
    require_name(name)
    require_file(checked or spec)
    words = subtask.train(spec, results=results, name=name, gpus=gpus, amp=amp, more=more)
    run_one(
        words, common, results=results, output=results / "weights" / f"{name}.hdf5", spec=spec, checked=checked,
        models=(pruned,) if pruned else (), trains=True,
    )  # fmt: skip


@app.command(cls=Command, short_help="Prune a trained detector.")
@with_common()
def prune(
    model: Model,
    output: Annotated[Path, typer.Option("--output", "-o", metavar="FILE", help="The pruned model, ending in .hdf5.")],
    more: More = None,
    threshold: Annotated[
        float, typer.Option("--threshold", metavar="X", min=0, max=1, help="Filters of a smaller norm go.")
    ] = 0.1,
    criterion: Annotated[
        str, typer.Option("--equalization", metavar="C", help=f"Of layers that are added: {', '.join(CRITERIA)}.")
    ] = "union",
    *,
    common: Common,
) -> None:
    """Take away the filters that matter least; what is left must be retrained.

    Example: tao2serve tao prune results/unpruned/weights/model.hdf5 -o results/pruned/model.hdf5 --threshold 0.1
    """
    from tao2serve.tao import subtask

    one_of(criterion, CRITERIA, option="--equalization")
    require_no_key(more or ())
    require_file(model)
    if output.suffix != ".hdf5":
        raise UsageError("--output", f"is {output}", hint="its name must end in .hdf5: TAO appends that to any other")
    require_no_training("--output", output.parent)
    words = subtask.prune(
        model, output=output, results=output.parent, more=tuple(more or ()),
        options=subtask.PruneOptions(threshold=threshold, equalization=criterion),
    )  # fmt: skip
    run_one(words, common, results=output.parent, output=output, models=(model,))


@app.command(cls=Command, short_help="Evaluate a detector on validation data.")
@with_common()
def evaluate(
    model: Model,
    spec: ModelSpec,
    results: Results,
    more: More = None,
    *,
    common: Common,
) -> None:
    """Evaluate a detector on the spec's validation data, as TAO does while it trains.

    Example: tao2serve tao evaluate results/unpruned/weights/model.hdf5 --spec experiment_spec.txt -r results/evaluate
    """
    from tao2serve.tao import subtask

    require_no_key(more or ())
    require_file(model)
    require_file(spec)
    require_no_training("--results", results)
    words = subtask.evaluate(model, spec=spec, results=results, more=tuple(more or ()))
    run_one(words, common, results=results, output=results / "status.json", spec=spec, models=(model,))


@app.command(cls=Command, short_help="Export a detector to ONNX in NVIDIA's container.")
@with_common()
def export(
    model: Model,
    spec: ModelSpec,
    output: Annotated[Path, typer.Option("--output", "-o", metavar="FILE", help="The ONNX file; not there yet.")],
    more: More = None,
    *,
    common: Common,
) -> None:
    """Export a detector to ONNX in NVIDIA's container, by the route that gives the right numbers.

    `tao2serve export` does the same for .hdf5 without a container, and proves it.

    Example: tao2serve tao export results/retrain/weights/model.hdf5 --spec experiment_spec.txt -o results/model.onnx
    """
    from tao2serve.tao import subtask

    require_no_key(more or ())
    require_file(model)
    require_file(spec)
    if output.exists():
        raise UsageError("--output", f"is {output}, which exists: TAO's exporter refuses that", hint="choose another")
    require_no_training("--output", output.parent)
    words = subtask.export(model, spec=spec, output=output, results=output.parent, more=tuple(more or ()))
    run_one(words, common, results=output.parent, output=output, spec=spec, models=(model,))


@app.command("gen-trt-engine", cls=Command, short_help="Build a TensorRT plan in NVIDIA's container.")
@with_common()
def gen_trt_engine(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="The .onnx file, or an .etlt with its key.")],
    spec: ModelSpec,
    results: Results,
    more: More = None,
    engine_file: Annotated[
        Path | None, typer.Option("--engine-file", metavar="FILE", help="The plan; default: in the results folder.")
    ] = None,
    data_type: Annotated[str, typer.Option("--data-type", metavar="T", help=f"{', '.join(DATA_TYPES)}.")] = "fp32",
    max_batch_size: Annotated[
        int | None, typer.Option("--max-batch-size", metavar="N", min=1, help="Largest batch of the plan.")
    ] = None,
    calibration_images: Annotated[
        Path | None, typer.Option("--calibration-images", metavar="DIR", help="int8: pictures to calibrate on.")
    ] = None,
    calibration_cache: Annotated[
        Path | None, typer.Option("--calibration-cache", metavar="FILE", help="int8: the cache, written or read.")
    ] = None,
    qat_scales: Annotated[
        Path | None, typer.Option("--qat-scales", metavar="FILE", help="int8: tensor scales of a model trained so.")
    ] = None,
    *,
    common: Common,
) -> None:
    """Build a TensorRT plan of an exported model in NVIDIA's deploy container; it fits that TensorRT and this GPU.

    Example: tao2serve tao gen-trt-engine model.onnx --spec experiment_spec.txt -r results/engine --data-type fp16
    """
    from tao2serve.tao import subtask

    one_of(data_type, DATA_TYPES, option="--data-type")
    require_no_key(more or ())
    for file in (model, spec, *(path for path in (qat_scales,) if path)):
        require_file(file)
    require_no_training("--results", results)
    engine = engine_file or results / f"{model.stem}.engine"
    words = subtask.gen_trt_engine(
        model, spec=spec, results=results, engine=engine, more=tuple(more or ()),
        options=subtask.EngineOptions(
            data_type=data_type, max_batch_size=max_batch_size, opt_batch_size=max_batch_size,
            cal_image_dir=calibration_images, cal_cache_file=calibration_cache, cal_json_file=qat_scales,
        ),
    )  # fmt: skip
    run_one(words, common, results=results, output=engine, spec=spec, models=(model,))


app.command("run", cls=Command, short_help="The whole notebook, resumable.")(run)
