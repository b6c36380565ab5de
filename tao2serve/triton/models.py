"""The Triton models of one deployment: the detector alone, or an ensemble around it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tao2serve import runtime
from tao2serve.config import Settings
from tao2serve.errors import InputError, UsageError
from tao2serve.runtime import DetectorParams, ensemble
from tao2serve.triton.config import (
    ENSEMBLE,
    OFFSET_PARAMETER,
    PLAN_BACKEND,
    PRECISION_PARAMETER,
    PYTHON_BACKEND,
    SCALE_PARAMETER,
    Batching,
    ModelConfig,
    Step,
    Warmup,
)
from tao2serve.values import ModelArtifact, Tensor

__all__ = ["MODEL_CODE", "MODEL_FILE", "PLAN_FILE", "VERSION", "ModelFolder", "detector_name", "models_of"]

VERSION: Final = 1
MODEL_CODE: Final = "model.py"
MODEL_FILE: Final = "model.onnx"
PLAN_FILE: Final = "model.plan"
RUNTIME: Final = Path(runtime.__file__).parent
PREPROCESS, DETECTOR, POSTPROCESS = "_preprocess", "_detector", "_postprocess"
PARTS: Final = (PREPROCESS, DETECTOR, POSTPROCESS)
WARMUP_IMAGE: Final = "image"
WARMUP_PICTURE: Final = Path(__file__).with_name("warmup.jpg")  # 1920x1080, smooth colours

IMAGE: Final = Tensor(name=ensemble.IMAGE, datatype="STRING", shape=(1,))
IMAGE_SIZE: Final = Tensor(name=ensemble.IMAGE_SIZE, datatype="INT32", shape=(2,))
PREPROCESS_MS: Final = Tensor(name=ensemble.PREPROCESS_MS, datatype="FP32", shape=(1,))
DETECTIONS: Final = Tensor(name=ensemble.DETECTIONS, datatype="FP32", shape=(-1, ensemble.COLUMNS))
COUNT: Final = Tensor(name=ensemble.COUNT, datatype="INT32", shape=(1,))
POSTPROCESS_MS: Final = Tensor(name=ensemble.POSTPROCESS_MS, datatype="FP32", shape=(1,))


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelFolder:
    """One model as it will lie in a repository: config.pbtxt, and files by their path in the model's folder."""

    config: ModelConfig
    files: Mapping[str, Path | bytes]


def detector_name(model: str) -> str:
    """Return the network's own model in the ensemble `model`."""
    return model + DETECTOR


def models_of(
    artifact: ModelArtifact, params: DetectorParams | None, settings: Settings, *, name: str
) -> tuple[ModelFolder, ...]:
    """Return the models to write, the one to load and to ask, which is called `name`, last.

    `params` is what an ensemble clusters boxes by. Raises InputError for a plan that takes no batch of one, and for
    an ensemble without params.
    """
    batch = _largest_batch(artifact, settings)
    if settings.placement == "endpoint":
        return (_detector(artifact, params, settings, name=name, batch=batch),)
    if params is None:
        raise InputError(f"ensemble {name}", "needs an experiment spec, to cluster boxes by", hint="add: --spec FILE")
    return (
        _preprocess(artifact, params, settings, name=name + PREPROCESS, batch=batch),
        _detector(artifact, params, settings, name=name + DETECTOR, batch=batch),
        _postprocess(artifact, params, settings, name=name + POSTPROCESS, batch=batch),
        _ensemble(artifact, settings, name=name, batch=batch),
    )


def _largest_batch(artifact: ModelArtifact, settings: Settings) -> int:
    """Return the largest batch that both the settings and the file's own profile allow."""
    if artifact.batches is None:
        return settings.max_batch_size
    least, most = artifact.batches
    if least > 1:  # a request alone is a batch of one
        raise InputError(
            str(artifact.path),
            "cannot be served: it takes no single image",
            evidence=f"it was built for batches of {least} to {most}",
            hint="build the engine with --min-batch 1",
        )
    return min(settings.max_batch_size, most)


def _detector(
    artifact: ModelArtifact, params: DetectorParams | None, settings: Settings, *, name: str, batch: int
) -> ModelFolder:
    """The network: a plan on a GPU by Triton's own backend, ONNX on the CPU by our python model."""
    signature = artifact.signature
    is_plan = artifact.format == "tensorrt_plan"
    parameters = {PRECISION_PARAMETER: artifact.precision}
    if signature.gives_boxes and params is not None:
        parameters |= {SCALE_PARAMETER: str(params.bbox_scale), OFFSET_PARAMETER: str(params.bbox_offset)}
    if settings.cpu_threads and not is_plan:
        parameters["cpu_threads"] = str(settings.cpu_threads)
    files: dict[str, Path | bytes] = {f"{VERSION}/{PLAN_FILE if is_plan else MODEL_FILE}": artifact.path}
    if not is_plan:
        files[f"{VERSION}/{MODEL_CODE}"] = RUNTIME / "triton_model.py"
    for companion in artifact.companions:  # weights that an ONNX file keeps beside itself, found by relative name
        files[f"{VERSION}/{companion.relative_to(artifact.path.parent).as_posix()}"] = companion
    return ModelFolder(
        config=ModelConfig(
            name=name,
            backend=PLAN_BACKEND if is_plan else PYTHON_BACKEND,
            inputs=(signature.input,),
            outputs=(signature.coverage, signature.bbox),
            max_batch_size=batch,
            instances=settings.instances,
            on_gpu=is_plan,
            batching=Batching(
                queue_delay_us=settings.queue_delay_us, preferred_sizes=_preferred_sizes(settings, batch)
            ),
            warmup=tuple(Warmup(batch=size) for size in sorted({1, batch})) if settings.warmup else (),
            version_policy=settings.version_policy,
            parameters=parameters,
        ),
        files=files,
    )


def _preferred_sizes(settings: Settings, batch: int) -> tuple[int, ...]:
    sizes = tuple(int(size) for size in settings.preferred_batch_sizes.split(",") if size)
    for size in sizes:
        if not 1 <= size <= batch:
            raise UsageError(
                "setting preferred_batch_sizes",
                f"has {size}, and batches have 1 to {batch} images",
                hint="mend TAO2SERVE_PREFERRED_BATCH_SIZES, or raise max_batch_size as far as the model allows",
            )
    return sizes


def _preprocess(
    artifact: ModelArtifact, params: DetectorParams, settings: Settings, *, name: str, batch: int
) -> ModelFolder:
    files = _code("triton_preprocess", params)
    warmup: tuple[Warmup, ...] = ()
    if settings.warmup:
        warmup = (Warmup(files={ensemble.IMAGE: WARMUP_IMAGE}),)
        picture = WARMUP_PICTURE.read_bytes()
        # As Triton carries BYTES: the length, and the element.
        files[f"warmup/{WARMUP_IMAGE}"] = len(picture).to_bytes(4, "little") + picture
    # No batching here, nor at the end: requests that wait go to whichever instance is free, one at a time.
    return ModelFolder(
        config=ModelConfig(
            name=name,
            backend=PYTHON_BACKEND,
            inputs=(IMAGE,),
            outputs=(artifact.signature.input, IMAGE_SIZE, PREPROCESS_MS),
            max_batch_size=batch,
            instances=settings.cpu_instances,
            warmup=warmup,
            version_policy=settings.version_policy,
            parameters={
                ensemble.RESIZE: settings.resize,
                ensemble.MAX_BYTES: str(settings.max_image_bytes),
                ensemble.MAX_PIXELS: str(settings.max_image_pixels),
            },
        ),
        files=files,
    )


def _postprocess(
    artifact: ModelArtifact, params: DetectorParams, settings: Settings, *, name: str, batch: int
) -> ModelFolder:
    signature = artifact.signature
    return ModelFolder(
        config=ModelConfig(
            name=name,
            backend=PYTHON_BACKEND,
            inputs=(signature.coverage, signature.bbox, IMAGE_SIZE),
            outputs=(DETECTIONS, COUNT, POSTPROCESS_MS),
            max_batch_size=batch,
            instances=settings.cpu_instances,
            warmup=(Warmup(),) if settings.warmup else (),
            version_policy=settings.version_policy,
            parameters={ensemble.BOXES: "absolute" if signature.gives_boxes else "offsets"},
        ),
        files=_code("triton_postprocess", params),
    )


def _ensemble(artifact: ModelArtifact, settings: Settings, *, name: str, batch: int) -> ModelFolder:
    signature = artifact.signature
    taken, coverage, bbox = (tensor.name for tensor in (signature.input, signature.coverage, signature.bbox))
    outputs = (DETECTIONS, COUNT, IMAGE_SIZE, PREPROCESS_MS, POSTPROCESS_MS)
    steps = (
        Step(
            model=name + PREPROCESS,
            inputs=_same(IMAGE.name), outputs=_same(taken, IMAGE_SIZE.name, PREPROCESS_MS.name),
        ),
        Step(model=name + DETECTOR, inputs=_same(taken), outputs=_same(coverage, bbox)),
        Step(
            model=name + POSTPROCESS,
            inputs=_same(coverage, bbox, IMAGE_SIZE.name),
            outputs=_same(DETECTIONS.name, COUNT.name, POSTPROCESS_MS.name),
        ),
    )  # fmt: skip
    config = ModelConfig(
        name=name,
        backend=ENSEMBLE,
        inputs=(IMAGE,),
        outputs=outputs,
        max_batch_size=batch,
        version_policy=settings.version_policy,
        steps=steps,
    )
    # An ensemble has nothing to run, but Triton wants a version folder, and git keeps none that is empty.
    return ModelFolder(config=config, files={f"{VERSION}/README": _ENSEMBLE_README.encode()})


_ENSEMBLE_README: Final = "An ensemble has no file of its own: config.pbtxt names the models that it passes on to.\n"


def _same(*names: str) -> dict[str, str]:
    return {name: name for name in names}


def _code(module: str, params: DetectorParams) -> dict[str, Path | bytes]:
    """The runtime as a package beside a model.py that takes its class from it, and the detector's parameters."""
    files: dict[str, Path | bytes] = {
        f"{VERSION}/runtime/{source.name}": source for source in sorted(RUNTIME.glob("*.py"))
    }
    files[f"{VERSION}/{MODEL_CODE}"] = (
        f'"""Triton\'s python backend takes the class from here."""\n\n'
        f"from .runtime.{module} import TritonPythonModel as TritonPythonModel\n"
    ).encode()
    files[f"{VERSION}/{ensemble.PARAMS_FILE}"] = (json.dumps(params.to_dict(), indent=2) + "\n").encode()
    return files
