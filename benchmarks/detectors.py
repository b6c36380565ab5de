"""The two detectors that serving benchmarks deploy, their pictures, and what an endpoint version needs to be one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from networks import LIGHT_CLASSES, light_spec, write_light
from pictures import write_pictures
from serving_stack import Stack

from tao2serve.runtime import DetectorParams
from tao2serve.sandbox.samples import PROJECT
from tao2serve.sandbox.samples import pictures as sample_pictures
from tao2serve.tao.params import to_params
from tao2serve.tao.reading import read_experiment

__all__ = ["SIZES", "Detector", "light_detector", "sample_detector"]

SIZES = {"960x544": (960, 544), "1920x1080": (1920, 1080)}
_PICTURES = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Detector:
    """What `tao2serve deploy` is told, the params the endpoint works by, and pictures to post."""

    name: str
    source: tuple[str, ...]
    params: DetectorParams
    pictures: Mapping[str, tuple[Path, ...]]  # by size

    @property
    def first_pictures(self) -> tuple[Path, ...]:
        return next(iter(self.pictures.values()))

    def deploy(self, stack: Stack, *, variables: Mapping[str, str] | None = None) -> dict[str, Any]:
        """Deploy it as a version of endpoint `name` under these settings and return the command's document."""
        return stack.deploy(*self.source, endpoint=self.name, image=self.first_pictures[0], variables=variables)


def light_detector(folder: Path, *, sizes: Mapping[str, tuple[int, int]] = SIZES) -> Detector:
    """The 3×544×960 network of `write_light`, and drawn pictures of each size."""
    weights, spec = write_light(folder / "light.hdf5"), folder / "light_spec.txt"
    spec.write_text(light_spec(), encoding="utf-8")
    drawn = {
        name: tuple(write_pictures(folder / "pictures", width=width, height=height, count=_PICTURES))
        for name, (width, height) in sizes.items()
    }
    params = DetectorParams.from_dict(to_params(read_experiment(spec)))
    assert tuple(entry.name for entry in params.classes) == LIGHT_CLASSES
    return Detector(name="light", source=(str(weights), "--spec", str(spec)), params=params, pictures=drawn)


def sample_detector() -> Detector:
    """The better of the sandbox's sample models, 3×224×384, and its own pictures."""
    from tao2serve.sandbox.samples import SAMPLE

    spec = read_experiment(next(SAMPLE.glob("*/experiment_spec.txt")))
    return Detector(
        name="sample",
        source=("--project", PROJECT),
        params=DetectorParams.from_dict(to_params(spec)),
        pictures={"sample": sample_pictures()},
    )
