"""What the fast resize mode does to pixels, boxes and average precision, beside TAO's LANCZOS.

    python benchmarks/resize_modes.py [--scenes 300] [--json FILE]

Both sample detectors (384×224), on the held-out scenes of examples/train_sample, drawn at each size and compressed
as they are served. Every picture is read in every mode; boxes and scores are held against those of the default mode.
"""

from __future__ import annotations

import argparse
import datetime
import io
import json
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from tao2serve.export.convert import export_onnx
from tao2serve.export.inference import onnxruntime
from tao2serve.parity.boxes import match_boxes
from tao2serve.runtime import Detections, DetectorParams, postprocess, resize
from tao2serve.runtime.preprocess import read_pixels, to_tensor
from tao2serve.tao.params import to_params
from tao2serve.tao.spec import read_spec

ROOT = Path(__file__).parents[1]
SAMPLE = ROOT / "tao2serve" / "sandbox" / "sample"
sys.path.append(str(ROOT / "examples" / "train_sample"))

from accuracy import Found, average_precision  # noqa: E402
from dataset import HELD_OUT_SEEDS, scene_jpeg  # noqa: E402
from scenes import CLASSES, LabeledBox, draw_scene  # noqa: E402

QUALITY, MIN_IOU = 88, 0.5
MODES = ("lanczos", "fast, OpenCV", "fast, Pillow")
Pixels = np.ndarray
# Size, how many times larger it is drawn before it is reduced, format. 384×224 is the network's own size.
SOURCES: tuple[tuple[int, int, int, str], ...] = (
    (960, 560, 2, "JPEG"), (1920, 1080, 1, "JPEG"), (1920, 1080, 1, "PNG"), (3840, 2160, 1, "JPEG"),
    (760, 444, 2, "JPEG"), (720, 420, 2, "JPEG"), (640, 360, 2, "JPEG"), (500, 292, 2, "JPEG"),
    (384, 224, 2, "JPEG"), (192, 112, 4, "JPEG"),
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    body: bytes
    boxes: tuple[LabeledBox, ...]

    def truth(self, label: str) -> np.ndarray:
        return np.asarray([b.xyxy for b in self.boxes if b.label == label], np.float32).reshape(-1, 4)


@dataclass(kw_only=True)
class Tally:
    """One model, mode and size: the boxes of every picture, and how they compare with the default mode's."""

    found: list[Detections] = field(default_factory=list)
    matched: int = 0
    larger: int = 0
    score_differences: list[float] = field(default_factory=list)

    def add(self, detections: Detections, reference: Detections) -> None:
        pairs = match_boxes(reference, detections)
        self.found.append(detections)
        self.matched += len(pairs)
        self.larger += max(len(reference.score), len(detections.score))
        self.score_differences += [abs(float(reference.score[i] - detections.score[j])) for i, j in pairs]

    def document(self, truths: Sequence[Sequence[np.ndarray]]) -> dict[str, Any]:
        per_class = [
            average_precision([_of_class(d, number) for d in self.found], truths[number], min_iou=MIN_IOU)
            for number in range(len(CLASSES))
        ]
        return {
            "mean_average_precision": round(float(np.mean(per_class)), 4),
            "matched_ratio": round(self.matched / max(self.larger, 1), 4),
            "score_difference": {
                "mean": round(float(np.mean(self.score_differences)), 4),
                "p99": round(float(np.percentile(self.score_differences, 99)), 4),
                "max": round(max(self.score_differences), 4),
            },
        }


def _of_class(detections: Detections, number: int) -> Found:
    mine = detections.class_id == number
    return Found(xyxy=detections.xyxy[mine], confidence=detections.raw_score[mine])


def draw(seed: int, sources: Sequence[tuple[int, int, int, str]]) -> list[Picture]:
    """Draw one scene at every size; the sensor's noise is that of the size, as in a camera of that resolution."""
    pictures = []
    for width, height, supersample, kind in sources:
        scene = draw_scene(seed, width=width, height=height, supersample=supersample)
        body = scene_jpeg(scene, quality=QUALITY, subsampling=2)
        if kind == "PNG":
            stream = io.BytesIO()
            scene.image.save(stream, "PNG", compress_level=1)
            body = stream.getvalue()
        pictures.append(Picture(body=body, boxes=scene.boxes))
    return pictures


def detector(name: str, scratch: Path) -> tuple[DetectorParams, Callable[[Pixels, tuple[int, int]], Detections]]:
    folder = SAMPLE / name
    spec = read_spec(folder / "experiment_spec.txt")
    (weights,) = (folder / "weights").glob("*.hdf5")
    artifact = export_onnx(weights, output=scratch / f"{name}.onnx", spec=spec)
    session = onnxruntime().InferenceSession(str(artifact.path), providers=["CPUExecutionProvider"])
    params = DetectorParams.from_dict(to_params(spec))
    names = [artifact.signature.coverage.name, artifact.signature.bbox.name]

    def detect(pixels: Pixels, size: tuple[int, int]) -> Detections:
        cov, bbox = session.run(names, {artifact.signature.input.name: to_tensor(pixels, params)[None]})
        return postprocess(cov[0], bbox[0], params, image_size=size)

    return params, detect


def read(body: bytes, params: DetectorParams) -> Iterator[tuple[str, Pixels, tuple[int, int]]]:
    """Yield (mode, pixels, size of the image) for each mode."""
    yield (MODES[0], *read_pixels(body, params))
    yield (MODES[1], *read_pixels(body, params, mode="fast"))
    found = resize.opencv
    resize.opencv = lambda: None  # type: ignore[assignment]
    try:
        yield (MODES[2], *read_pixels(body, params, mode="fast"))
    finally:
        resize.opencv = found


def measure(seeds: Sequence[int], sources: Sequence[tuple[int, int, int, str]]) -> list[dict[str, Any]]:
    with tempfile.TemporaryDirectory() as scratch:
        detectors = {name: detector(name, Path(scratch)) for name in ("pruned", "unpruned")}
    tallies = [{(name, mode): Tally() for name in detectors for mode in MODES} for _ in sources]
    histograms = [{mode: np.zeros(256, np.int64) for mode in MODES} for _ in sources]
    truths: list[list[list[np.ndarray]]] = [[[] for _ in CLASSES] for _ in sources]
    params = next(iter(detectors.values()))[0]
    with ProcessPoolExecutor(2) as pool:
        waiting = iter(seeds)
        drawing = [pool.submit(draw, seed, sources) for seed in islice(waiting, 4)]
        while drawing:
            pictures = drawing.pop(0).result()
            drawing += [pool.submit(draw, seed, sources) for seed in islice(waiting, 1)]
            for number, picture in enumerate(pictures):
                for k, label in enumerate(CLASSES):
                    truths[number][k].append(picture.truth(label))
                reference: dict[str, Detections] = {}
                exact: Pixels | None = None
                for mode, pixels, size in read(picture.body, params):
                    exact = pixels if exact is None else exact
                    difference = np.abs(pixels.astype(np.int16) - exact)
                    histograms[number][mode] += np.bincount(difference.ravel(), minlength=256)
                    for name, (_, detect) in detectors.items():
                        detections = detect(pixels, size)
                        tallies[number][name, mode].add(detections, reference.setdefault(name, detections))
    return [
        {
            "source": f"{kind} {width}x{height}",
            "pixels": {mode: levels(histograms[number][mode]) for mode in MODES[1:]},
            "models": {
                name: {mode: tallies[number][name, mode].document(truths[number]) for mode in MODES}
                for name in detectors
            },
        }
        for number, (width, height, _, kind) in enumerate(sources)
    ]  # fmt: skip


def levels(histogram: np.ndarray) -> dict[str, float]:
    """Return mean, 99th percentile and largest difference of pixels, in levels of 255."""
    total = histogram.sum()
    return {
        "mean": round(float((histogram * np.arange(256)).sum() / total), 2),
        "p99": int(np.searchsorted(np.cumsum(histogram), 0.99 * total)),
        "max": int(np.flatnonzero(histogram)[-1]),
    }


def table(results: Sequence[dict[str, Any]]) -> str:
    rows = [
        "| source | model | `lanczos` mAP | mode | pixels, mean / p99 / max | boxes | scores, mean / p99 / max | mAP |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for result in results:
        for name, modes in result["models"].items():
            for mode in MODES[1:]:
                found, pixels, scores = modes[mode], result["pixels"][mode], modes[mode]["score_difference"]
                change = found["mean_average_precision"] - modes[MODES[0]]["mean_average_precision"]
                rows.append(
                    f"| {result['source']} | {name} | {modes[MODES[0]]['mean_average_precision']:.4f} | {mode} "
                    f"| {pixels['mean']} / {pixels['p99']} / {pixels['max']} | {found['matched_ratio']:.4f} "
                    f"| {scores['mean']} / {scores['p99']} / {scores['max']} | {change:+.4f} |"
                )
    return "\n".join(rows)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scenes", type=int, default=300)
    parser.add_argument("--sources", type=int, nargs="*", default=range(len(SOURCES)), help="numbers of sizes")
    parser.add_argument("--json", type=Path, help="write every figure to this file")
    options = parser.parse_args(arguments)
    if resize.opencv() is None:
        print("OpenCV is missing: pip install opencv-python-headless", file=sys.stderr)
        return 4
    sources = [SOURCES[number] for number in options.sources]
    results = measure(range(HELD_OUT_SEEDS, HELD_OUT_SEEDS + options.scenes), sources)
    print(table(results))
    if options.json:
        document = {
            "date": datetime.date.today().isoformat(), "network": "384x224, the two sample detectors",
            "scenes": options.scenes, "jpeg_quality": QUALITY, "minimum_iou": MIN_IOU, "results": results,
        }  # fmt: skip
        options.json.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
