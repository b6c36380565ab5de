"""Measure the packaged models the way they are served, choose the pictures, write the manifest.

    python measure.py --sample tao2serve/sandbox/sample [--scenes 300]

Needs tao2serve and onnxruntime, not PyTorch: HDF5 → ONNX by `tao2serve.export`, JPEG bytes → boxes by
`tao2serve.runtime`, with the thresholds of each model's own experiment spec.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from accuracy import Found, average_precision, iou_matrix, match
from dataset import HELD_OUT_SEEDS, PICTURE_SEEDS, TRAINING_SEEDS, VALIDATION_SEEDS, scene_jpeg
from recipe import UNPRUNED
from scenes import CLASSES, LabeledBox, draw_scene

from tao2serve.export.convert import export_onnx
from tao2serve.runtime import Detections, DetectorParams, postprocess, preprocess
from tao2serve.tao.params import to_params
from tao2serve.tao.spec import read_spec

PICTURE_SIZE, JPEG_QUALITY, MIN_IOU = (960, 560), 88, 0.5
# Served pictures rarely have the network's own shape: some are wider, some taller.
_PICTURE_SIZES = (PICTURE_SIZE, PICTURE_SIZE, (1024, 576), (960, 600))
Detector = Callable[[bytes], Detections]


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """A drawn scene as a client would send it."""

    seed: int
    width: int
    height: int
    jpeg: bytes
    boxes: tuple[LabeledBox, ...]
    light: str

    def truth(self, label: str) -> np.ndarray:
        return np.asarray([b.xyxy for b in self.boxes if b.label == label], np.float32).reshape(-1, 4)


def _picture(seed: int, *, size: tuple[int, int] = PICTURE_SIZE) -> Picture:
    scene = draw_scene(seed, width=size[0], height=size[1], supersample=2)
    jpeg = scene_jpeg(scene, quality=JPEG_QUALITY, subsampling=2)
    return Picture(seed=seed, width=size[0], height=size[1], jpeg=jpeg, boxes=scene.boxes, light=scene.light)


def _sized_picture(seed: int) -> Picture:
    return _picture(seed, size=_PICTURE_SIZES[seed % len(_PICTURE_SIZES)])


def _detector(folder: Path, scratch: Path) -> Detector:
    import onnxruntime

    spec = read_spec(folder / "experiment_spec.txt")
    (weights,) = (folder / "weights").glob("*.hdf5")
    artifact = export_onnx(weights, output=scratch / f"{folder.name}.onnx", spec=spec)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 2
    session = onnxruntime.InferenceSession(artifact.path, options, providers=["CPUExecutionProvider"])
    params = DetectorParams.from_dict(to_params(spec))

    def detect(jpeg: bytes) -> Detections:
        tensor, size = preprocess(jpeg, params)
        cov, bbox = session.run(
            [artifact.signature.coverage.name, artifact.signature.bbox.name],
            {artifact.signature.input.name: tensor[None]},
        )
        return postprocess(cov[0], bbox[0], params, image_size=size)

    return detect


def _of_class(detections: Detections, class_id: int) -> Found:
    mine = detections.class_id == class_id
    return Found(xyxy=detections.xyxy[mine], confidence=detections.raw_score[mine])


def _accuracy(detect: Detector, pictures: Sequence[Picture]) -> dict[str, Any]:
    found = [detect(p.jpeg) for p in pictures]
    classes: dict[str, Any] = {}
    for k, label in enumerate(CLASSES):
        mine, truths = [_of_class(d, k) for d in found], [p.truth(label) for p in pictures]
        hits = sum(int(match(f, t, min_iou=MIN_IOU).sum()) for f, t in zip(mine, truths, strict=True))
        classes[label] = {
            "average_precision": round(average_precision(mine, truths, min_iou=MIN_IOU), 4),
            "precision": round(hits / max(sum(len(f.xyxy) for f in mine), 1), 4),
            "recall": round(hits / sum(len(t) for t in truths), 4),
            "objects": sum(len(t) for t in truths),
        }
    mean = float(np.mean([c["average_precision"] for c in classes.values()]))
    return {"mean_average_precision": round(mean, 4), "classes": classes}


def _flawless(detect: Detector, picture: Picture) -> bool:
    """Say whether every object is found at the minimum IoU and nothing else is."""
    detections = detect(picture.jpeg)
    for k, label in enumerate(CLASSES):
        mine, truth = _of_class(detections, k).xyxy, picture.truth(label)
        if len(mine) != len(truth):
            return False
        if len(truth) and (iou_matrix(mine, truth) >= MIN_IOU).sum(0).min() < 1:
            return False
    return True


def _showcase(detect: Detector, wanted: int, seeds: Sequence[int]) -> list[Picture]:
    """Take pictures with all classes and at least five objects in which the detector makes no mistake."""
    chosen: list[Picture] = []
    for seed in seeds:
        picture = _sized_picture(seed)
        labels = {b.label for b in picture.boxes}
        rich = len(picture.boxes) >= 5 and labels == set(CLASSES)
        crowd = sum(p.light == picture.light for p in chosen)
        if rich and crowd < 3 and _flawless(detect, picture):
            chosen.append(picture)
        if len(chosen) == wanted:
            break
    return chosen


def _kitti(boxes: Sequence[LabeledBox]) -> str:
    lines = [
        f"{b.label} {b.truncation:.2f} {b.occlusion} 0.00 {b.left:.2f} {b.top:.2f} {b.right:.2f} {b.bottom:.2f}"
        + " 0.00" * 7
        for b in boxes
    ]
    return "\n".join(lines) + "\n"


def _write_pictures(sample: Path, pictures: Sequence[Picture]) -> list[dict[str, Any]]:
    entries: list[dict[str, Any]] = []
    for folder in ("images", "labels"):
        (sample / folder).mkdir(parents=True, exist_ok=True)
        for old in (sample / folder).iterdir():
            old.unlink()
    for number, picture in enumerate(pictures, start=1):
        stem = f"street_{number:02d}"
        (sample / "images" / f"{stem}.jpg").write_bytes(picture.jpeg)
        (sample / "labels" / f"{stem}.txt").write_text(_kitti(picture.boxes))
        entries.append(
            {"stem": stem, "seed": picture.seed, "width": picture.width, "height": picture.height,
             "objects": len(picture.boxes), "light": picture.light}
        )  # fmt: skip
    return entries


def _last_status(folder: Path) -> dict[str, Any]:
    records = [json.loads(line) for line in (folder / "status.json").read_text().splitlines()]
    return [record for record in records if "kpi" in record][-1]


def _files(sample: Path) -> dict[str, dict[str, Any]]:
    return {
        path.relative_to(sample).as_posix(): {
            "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
            "bytes": path.stat().st_size,
        }
        for path in sorted(sample.rglob("*"))
        if path.is_file() and path.name != "MANIFEST.json"
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sample", type=Path, required=True)
    parser.add_argument("--scenes", type=int, default=300)
    parser.add_argument("--pictures", type=int, default=10)
    parser.add_argument("--seeds", type=int, nargs="*", help="use these scenes as pictures")
    arguments = parser.parse_args()
    sample: Path = arguments.sample
    with ProcessPoolExecutor(2) as pool:
        seeds = range(HELD_OUT_SEEDS, HELD_OUT_SEEDS + arguments.scenes)
        held_out = list(pool.map(partial(_picture, size=PICTURE_SIZE), seeds, chunksize=8))
    models: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as scratch:
        for name in ("unpruned", "pruned"):
            folder = sample / name
            if not folder.is_dir():
                continue
            detect = _detector(folder, Path(scratch))
            status = _last_status(folder)
            models[name] = _accuracy(detect, held_out) | {
                "parameters": round(status["kpi"]["param_count"] * 1e6),
                "epochs": status["epoch"],
                "validation_mean_average_precision_percent": status["kpi"]["mean average precision"],
            }
            print(name, json.dumps(models[name], indent=1))
        pool_of_seeds = arguments.seeds or range(PICTURE_SEEDS, PICTURE_SEEDS + 400)
        pictures = _write_pictures(sample, _showcase(detect, arguments.pictures, pool_of_seeds))
    manifest = {
        "made_with": "examples/train_sample",
        "network": {"template": "resnet10", "input": UNPRUNED.input_chw, "stride": 16, "classes": CLASSES},
        "seed": UNPRUNED.seed,
        "first_scene_seeds": {"training": TRAINING_SEEDS, "validation": VALIDATION_SEEDS, "held_out": HELD_OUT_SEEDS},
        "measured": {
            "scenes": arguments.scenes,
            "as": f"{PICTURE_SIZE[0]}x{PICTURE_SIZE[1]} JPEG, quality {JPEG_QUALITY}",
            "path": "HDF5 exported by tao2serve.export, run in onnxruntime, decoded by tao2serve.runtime "
            "with the thresholds of the model's experiment spec",
            "minimum_iou": MIN_IOU,
            "models": models,
        },
        "pictures": {
            "chosen": "scenes of a further seed range in which the pruned model finds every object and nothing else",
            "items": pictures,
        },
        "files": _files(sample),
    }
    (sample / "MANIFEST.json").write_text(json.dumps(manifest, indent=1) + "\n")


if __name__ == "__main__":
    main()
