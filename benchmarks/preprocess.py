"""What an image costs from its bytes to the network's tensor: TAO's plain way, both resize modes, and decoding alone.

    python benchmarks/preprocess.py [--rounds 25] [--json FILE]

One thread, and its processor time, which other work on the machine adds little to. All ways take turns, round after
round; the median round counts. The images are photo-like and made here: a sample scene enlarged, with detail of a
natural spectrum and some noise on it.
"""

from __future__ import annotations

import argparse
import datetime
import io
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import PIL
from PIL import Image, features

import tao2serve
from tao2serve.runtime import DetectorParams, preprocess, resize
from tao2serve.runtime.values import Float32

SCENE = Path(tao2serve.__file__).parent / "sandbox" / "sample" / "images" / "street_03.jpg"
QUALITY = 88
NETWORK = (960, 544)
# The first is the one that targets are set for.
CASES: tuple[tuple[str, int, int], ...] = (
    ("JPEG", 1920, 1080), ("JPEG", 1280, 720), ("JPEG", 960, 540), ("JPEG", 2560, 1440), ("JPEG", 3840, 2160),
    ("JPEG", 640, 360), ("PNG", 1920, 1080), ("BMP", 1920, 1080), ("WEBP", 1920, 1080),
)  # fmt: skip
LEAST_SPEEDUP, MOST_OF_A_DECODE = 3.0, 1.3
Way = Callable[[], object]


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """One image: its size, and the time of each way in each round, in milliseconds."""

    name: str
    width: int
    height: int
    image_bytes: int
    times_ms: Mapping[str, Sequence[float]]

    def median_ms(self, way: str) -> float | None:
        return statistics.median(self.times_ms[way]) if way in self.times_ms else None

    def ratio(self, one: str, other: str) -> float | None:
        """How many times as long `one` takes as `other`."""
        above, below = self.median_ms(one), self.median_ms(other)
        return above / below if above and below else None

    def document(self) -> dict[str, Any]:
        ways = {
            way: {"median_ms": round(statistics.median(times), 2), "min_ms": round(min(times), 2),
                  "max_ms": round(max(times), 2)}
            for way, times in self.times_ms.items()
        }  # fmt: skip
        return {"image": self.name, "width": self.width, "height": self.height, "bytes": self.image_bytes, "ways": ways}


def photograph(width: int, height: int, *, seed: int = 1) -> Image.Image:
    """Draw a picture with the detail of a photograph: amplitudes fall with the frequency, and a sensor adds noise."""
    with Image.open(SCENE) as scene:
        smooth = np.asarray(scene.convert("RGB").resize((width, height), Image.Resampling.BICUBIC), np.float32)
    chance = np.random.default_rng(seed)
    spectrum = np.fft.rfft2(chance.standard_normal((height, width)))
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None])
    frequency[0, 0] = 1.0
    detail = np.fft.irfft2(spectrum / frequency, (height, width))
    detail = detail / detail.std() * 18 + chance.standard_normal((height, width)) * 2
    return Image.fromarray(np.clip(smooth + detail[..., None], 0, 255).astype(np.uint8))


def encoded(image: Image.Image, kind: str) -> bytes:
    stream = io.BytesIO()
    options = {"quality": QUALITY} if kind in ("JPEG", "WEBP") else {"compress_level": 6} if kind == "PNG" else {}
    image.save(stream, kind, **options)
    return stream.getvalue()


def plain(body: bytes, size: tuple[int, int]) -> Float32:
    """TAO's plain way, as nvidia-tao-deploy 7.3.0 goes: open, convert, LANCZOS, numpy."""
    image = Image.open(io.BytesIO(body)).convert("RGB").resize(size, Image.Resampling.LANCZOS)
    tensor: Float32 = np.ascontiguousarray(np.transpose(np.asarray(image, dtype=np.float32) / 255.0, (2, 0, 1)))
    return tensor


def ways(body: bytes, params: DetectorParams) -> dict[str, Way]:
    """Return what is timed, by name; what needs OpenCV is left out where it is missing."""
    size = (params.width, params.height)
    cv2 = resize.opencv()

    def without_opencv() -> object:
        resize.opencv = lambda: None  # type: ignore[assignment]
        try:
            return preprocess(body, params, mode="fast")
        finally:
            resize.opencv = found

    found = resize.opencv
    timed: dict[str, Way] = {
        "plain": lambda: plain(body, size),
        "lanczos": lambda: preprocess(body, params),
        "fast_pillow": without_opencv,
        "decode_pillow": lambda: Image.open(io.BytesIO(body)).load(),
    }
    if cv2 is not None:
        cv2.setNumThreads(1)
        buffer = np.frombuffer(body, np.uint8)
        timed["fast_opencv"] = lambda: preprocess(body, params, mode="fast")
        timed["decode_opencv"] = lambda: cv2.imdecode(buffer, cv2.IMREAD_COLOR)
    return timed


def measured(kind: str, width: int, height: int, *, params: DetectorParams, rounds: int) -> Measured:
    """Time every way on one image; raises SystemExit if the default mode is not TAO's tensor."""
    body = encoded(photograph(width, height), kind)
    if not np.array_equal(preprocess(body, params)[0], plain(body, (params.width, params.height))):
        raise SystemExit("the default mode does not give TAO's numbers: there is nothing to compare")
    timed = ways(body, params)
    times: dict[str, list[float]] = {name: [] for name in timed}
    for number in range(rounds + 1):
        for name, way in timed.items():
            start = time.thread_time()
            way()
            if number:  # the first round warms up
                times[name].append((time.thread_time() - start) * 1e3)
    return Measured(name=kind, width=width, height=height, image_bytes=len(body), times_ms=times)


def table(cases: Sequence[Measured]) -> str:
    """Return Markdown: times in ms, and how many times faster than TAO's plain way."""
    rows = [
        "| image | plain | `lanczos` | `fast`, OpenCV | `fast`, Pillow | decode, Pillow | decode, OpenCV |",
        "|---|---|---|---|---|---|---|",
    ]
    for case in cases:
        cells = [f"{case.name} {case.width}×{case.height}, {case.image_bytes / 1e3:.0f} kB"]
        for way in ("plain", "lanczos", "fast_opencv", "fast_pillow", "decode_pillow", "decode_opencv"):
            median_ms, faster = case.median_ms(way), case.ratio("plain", way)
            if median_ms is None or faster is None:
                cells.append("–")
            else:
                fast = way.startswith("fast") or way == "lanczos"
                cells.append(f"{median_ms:.1f}" + (f" ({faster:.1f}×)" if fast else ""))
        rows.append("| " + " | ".join(cells) + " |")
    return "\n".join(rows)


def targets(case: Measured) -> list[dict[str, Any]]:
    """Hold the first image against what is asked of the fast mode, with OpenCV and without."""
    found: list[dict[str, Any]] = []
    for way in ("fast_opencv", "fast_pillow"):
        faster, of_decode = case.ratio("plain", way), case.ratio(way, "decode_pillow")
        if faster is None or of_decode is None:
            continue
        found.append(
            {
                "way": way,
                "times_faster_than_plain": round(faster, 2),
                "times_a_full_decode": round(of_decode, 2),
                "met": faster >= LEAST_SPEEDUP and of_decode <= MOST_OF_A_DECODE,
            }
        )
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=25)
    parser.add_argument("--network", type=int, nargs=2, default=NETWORK, metavar=("WIDTH", "HEIGHT"))
    parser.add_argument("--images", type=int, default=len(CASES), help="how many of the images to measure")
    parser.add_argument("--json", type=Path, help="write every figure to this file")
    options = parser.parse_args(arguments)
    network = {"channels": 3, "width": options.network[0], "height": options.network[1]}
    params = DetectorParams.from_dict(
        {"family": "detectnet_v2", "input": network, "bbox_scale": 35.0, "bbox_offset": 0.5, "classes": [{"name": "x"}]}
    )
    load: list[float] = []
    cases: list[Measured] = []
    for kind, width, height in CASES[: options.images]:
        load.append(round(os.getloadavg()[0], 1))
        cases.append(measured(kind, width, height, params=params, rounds=options.rounds))
        print(f"{kind} {width}x{height}: done at a load of {load[-1]}", file=sys.stderr)
    verdicts = targets(cases[0])
    print(table(cases))
    for verdict in verdicts:
        print(
            f"\n{verdict['way']}: {verdict['times_faster_than_plain']} times faster than the plain way (target "
            f"{LEAST_SPEEDUP:g}), {verdict['times_a_full_decode']} times a full-size decode by Pillow (target at most "
            f"{MOST_OF_A_DECODE:g}): {'met' if verdict['met'] else 'missed'}",
            end="",
        )
    print()
    if options.json:
        cv2 = resize.opencv()
        document = {
            "date": datetime.date.today().isoformat(),
            "network": network,
            "rounds": options.rounds,
            "load_average": load,
            "versions": {
                "python": platform.python_version(), "numpy": np.__version__, "pillow": PIL.__version__,
                "libjpeg_turbo_of_pillow": features.version("libjpeg_turbo"),
                "opencv": cv2.__version__ if cv2 else None,
            },
            "images": [case.document() for case in cases],
            "targets": verdicts,
        }  # fmt: skip
        options.json.write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
