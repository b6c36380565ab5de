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
from functools import cache, partial
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
from scenes import CLASSES, LabeledBox, Scene, draw_scene  # noqa: E402

QUALITY, MIN_IOU = 88, 0.5
MODELS = ("pruned", "unpruned")
MODES = ("lanczos", "fast, OpenCV", "fast, Pillow")
Pixels = np.ndarray
# Size, how many times larger it is drawn before it is reduced, format. The network's own size is 384×224.
SOURCES: tuple[tuple[int, int, int, str], ...] = (
    (1920, 1080, 1, "JPEG"), (1920, 1080, 1, "PNG"), (1500, 876, 1, "JPEG"), (1440, 840, 1, "JPEG"),
    (960, 560, 2, "JPEG"), (760, 444, 2, "JPEG"), (640, 360, 2, "JPEG"), (500, 292, 2, "JPEG"), (192, 112, 4, "JPEG"),
)  # fmt: skip
Source = tuple[int, int, int, str]
Detect = Callable[[Pixels, tuple[int, int]], Detections]


@dataclass(frozen=True, slots=True, kw_only=True)
class Answers:
    """One scene at one size: what is in it, and what each mode and model made of it."""

    boxes: tuple[LabeledBox, ...]
    histograms: dict[str, np.ndarray]  # of the pixels' differences from the default mode
    detections: dict[tuple[str, str], Detections]  # by model and mode

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


def body_of(scene: Scene, kind: str) -> bytes:
    if kind == "JPEG":
        return scene_jpeg(scene, quality=QUALITY, subsampling=2)
    stream = io.BytesIO()
    scene.image.save(stream, kind, compress_level=1)
    return stream.getvalue()


@cache
def detector(name: str, onnx: Path) -> tuple[DetectorParams, Detect]:
    """Return a sample detector that runs in one thread; exports it to `onnx` first if that is not there."""
    folder = SAMPLE / name
    spec = read_spec(folder / "experiment_spec.txt")
    if not onnx.exists():
        (weights,) = (folder / "weights").glob("*.hdf5")
        export_onnx(weights, output=onnx, spec=spec)
    ort = onnxruntime()
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(str(onnx), options, providers=["CPUExecutionProvider"])
    params = DetectorParams.from_dict(to_params(spec))
    # TAO's order of outputs, which the exporter keeps: coverage, then bbox.
    given, (coverage, boxes) = session.get_inputs()[0].name, [output.name for output in session.get_outputs()]

    def detect(pixels: Pixels, size: tuple[int, int]) -> Detections:
        cov, bbox = session.run([coverage, boxes], {given: to_tensor(pixels, params)[None]})
        return postprocess(cov[0], bbox[0], params, image_size=size)

    return params, detect


def read(body: bytes, params: DetectorParams) -> Iterator[tuple[str, Pixels, tuple[int, int]]]:
    """Yield (mode, pixels, size of the image) for each mode, the default first."""
    yield (MODES[0], *read_pixels(body, params))
    yield (MODES[1], *read_pixels(body, params, mode="fast"))
    found = resize.opencv
    resize.opencv = lambda: None  # type: ignore[assignment]
    try:
        yield (MODES[2], *read_pixels(body, params, mode="fast"))
    finally:
        resize.opencv = found


def judge(seed: int, *, sources: Sequence[Source], scratch: Path) -> list[Answers]:
    """Draw one scene at every size and ask both models about it in every mode.

    The sensor's noise is that of the size, as in a camera of that resolution.
    """
    detectors = {name: detector(name, scratch / f"{name}.onnx") for name in MODELS}
    params = detectors[MODELS[0]][0]
    answers: list[Answers] = []
    scenes: dict[tuple[int, int], Scene] = {}
    for width, height, supersample, kind in sources:
        if (width, height) not in scenes:
            scenes[width, height] = draw_scene(seed, width=width, height=height, supersample=supersample)
        scene = scenes[width, height]
        exact: Pixels | None = None
        histograms: dict[str, np.ndarray] = {}
        detections: dict[tuple[str, str], Detections] = {}
        for mode, pixels, size in read(body_of(scene, kind), params):
            exact = pixels if exact is None else exact
            difference = np.abs(pixels.astype(np.int16) - exact)
            histograms[mode] = np.bincount(difference.ravel(), minlength=256)
            for name, (_, detect) in detectors.items():
                detections[name, mode] = detect(pixels, size)
        answers.append(Answers(boxes=scene.boxes, histograms=histograms, detections=detections))
    return answers


def measure(seeds: Sequence[int], sources: Sequence[Source]) -> list[dict[str, Any]]:
    with tempfile.TemporaryDirectory() as scratch, ProcessPoolExecutor(2) as pool:
        for name in MODELS:
            detector(name, Path(scratch) / f"{name}.onnx")
        scenes = []
        for number, answers in enumerate(pool.map(partial(judge, sources=sources, scratch=Path(scratch)), seeds), 1):
            scenes.append(answers)
            if number % 20 == 0:
                print(f"{number} scenes", file=sys.stderr)
    return [summary(source, [scene[number] for scene in scenes]) for number, source in enumerate(sources)]


def summary(source: Source, answers: Sequence[Answers]) -> dict[str, Any]:
    """Sum up one size over all scenes."""
    width, height, _, kind = source
    truths = [[answer.truth(label) for answer in answers] for label in CLASSES]
    models: dict[str, Any] = {}
    for name in MODELS:
        models[name] = {}
        for mode in MODES:
            tally = Tally()
            for answer in answers:
                tally.add(answer.detections[name, mode], answer.detections[name, MODES[0]])
            models[name][mode] = tally.document(truths)
    pixels = {mode: levels(np.sum([answer.histograms[mode] for answer in answers], axis=0)) for mode in MODES[1:]}
    return {"source": f"{kind} {width}x{height}", "pixels": pixels, "models": models}


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
