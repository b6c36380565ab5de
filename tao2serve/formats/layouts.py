"""The five layouts as things that pictures are added to, one after the other, and that are written at the end."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path, PurePosixPath
from types import TracebackType
from typing import IO, Any, Final, Literal, Protocol, Self, TypeAlias, get_args

from tao2serve.formats import coco, fiftyone, kitti, roboflow
from tao2serve.formats.picture import PictureDetections
from tao2serve.formats.spool import Spool

__all__ = ["FORMATS", "Format", "Layout", "layout_of"]

Format: TypeAlias = Literal["native", "coco", "kitti", "roboflow", "fiftyone"]
FORMATS: Final[tuple[Format, ...]] = get_args(Format)


class Layout(Protocol):
    """The detections of a run in one layout; a context manager, for it may hold temporary files.

    `ending` is that of the file each picture gets, and empty where there is none; `files` are the names of those
    that all pictures share. Which of the two a layout has is its readers' choice.
    """

    ending: str
    files: tuple[str, ...]

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def add(self, picture: PictureDetections) -> dict[str, Any]:
        """Take a picture in, and return what a document says of it alone."""
        ...

    def text_of(self, picture: PictureDetections) -> str:
        """Return the content of the picture's own file; for layouts with an `ending`."""
        ...

    def write(self, name: str, out: IO[str]) -> None:
        """Write the shared file of that name, with all pictures added so far."""
        ...

    def write_members(self, out: IO[str]) -> None:
        """Write the members that a JSON document of all pictures has besides their entries, each after a comma."""
        ...

    def write_alone(self, out: IO[str]) -> None:
        """Write what is printed where there are no files: the shared document, or what the pictures' files hold."""
        ...


class _Spooled:
    """What the layouts have in common: spools, closed at the end."""

    ending = ""
    files: tuple[str, ...] = ()

    def __init__(self, *spools: str) -> None:
        self._spools = {name: Spool() for name in spools}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for spool in self._spools.values():
            spool.close()

    def text_of(self, picture: PictureDetections) -> str:
        return ""

    def write(self, name: str, out: IO[str]) -> None:
        raise KeyError(name)

    def write_members(self, out: IO[str]) -> None:
        """Nothing: each picture's entry says it all."""

    def write_alone(self, out: IO[str]) -> None:
        self.write(self.files[0], out)

    def _list(self, name: str, out: IO[str], brackets: str = "[]") -> None:
        out.write(brackets[0] + "\n")
        self._spools[name].copy_to(out)
        out.write("\n" + brackets[1])


class NativeLayout(_Spooled):
    """The endpoint's own documents, one a line."""

    files: tuple[str, ...] = ("predictions.jsonl",)

    def __init__(self) -> None:
        super().__init__("pictures")

    def add(self, picture: PictureDetections) -> dict[str, Any]:
        self._spools["pictures"].add({"file": picture.path or picture.name, **picture.document}, separator="\n")
        return dict(picture.document)

    def write(self, name: str, out: IO[str]) -> None:
        self._spools["pictures"].copy_to(out)
        if self._spools["pictures"].count:
            out.write("\n")


class KittiLayout(_Spooled):
    """A label file a picture."""

    ending = ".txt"

    def __init__(self) -> None:
        super().__init__("lines")

    def add(self, picture: PictureDetections) -> dict[str, Any]:
        text = self.text_of(picture)
        self._spools["lines"].add_text(text)
        return {"image": picture.size, "lines": text.splitlines()}

    def write_alone(self, out: IO[str]) -> None:
        self._spools["lines"].copy_to(out)

    def text_of(self, picture: PictureDetections) -> str:
        return kitti.kitti_text(picture.predictions)


class RoboflowLayout(_Spooled):
    """An object a picture, as the inference server answers."""

    ending = ".json"

    def __init__(self) -> None:
        super().__init__("pictures")

    def add(self, picture: PictureDetections) -> dict[str, Any]:
        document = roboflow.roboflow_document(picture)
        self._spools["pictures"].add(document)
        return document

    def write_alone(self, out: IO[str]) -> None:
        """One picture's object, a list of several: as the inference server answers one and several."""
        if self._spools["pictures"].count == 1:
            self._spools["pictures"].copy_to(out)
        else:
            self._list("pictures", out)
        out.write("\n")

    def text_of(self, picture: PictureDetections) -> str:
        return json.dumps(roboflow.roboflow_document(picture), indent=2) + "\n"


class CocoLayout(_Spooled):
    """A dataset file with scores, and the list of results."""

    files: tuple[str, ...] = ("instances.json", "results.json")

    def __init__(self) -> None:
        super().__init__("images", "annotations", "results")
        self._labels: dict[int, str] = {}

    def add(self, picture: PictureDetections) -> dict[str, Any]:
        image_id = self._spools["images"].count + 1
        self._spools["images"].add(coco.image_entry(picture, image_id=image_id))
        annotations = self._spools["annotations"]
        for prediction in picture.predictions:
            self._labels.setdefault(prediction.class_id, prediction.label)
            annotations.add(coco.annotation_entry(prediction, image_id=image_id, annotation_id=annotations.count + 1))
            self._spools["results"].add(coco.result_entry(prediction, image_id=image_id))
        return {"image": picture.size, "image_id": image_id}

    def write(self, name: str, out: IO[str]) -> None:
        if name == "results.json":
            self._list("results", out)
            out.write("\n")
            return
        out.write('{"licenses": []')
        self.write_members(out)
        out.write("\n}\n")

    def write_members(self, out: IO[str]) -> None:
        info = {"description": "detections, not ground truth", "contributor": "tao2serve"}
        categories = [coco.category_entry(*item) for item in sorted(self._labels.items())]
        out.write(f',\n"info": {json.dumps(info)},\n"categories": {json.dumps(categories)},\n"images": ')
        self._list("images", out)
        out.write(',\n"annotations": ')
        self._list("annotations", out)


class FiftyOneLayout(_Spooled):
    """The labels.json of a FiftyOneImageDetectionDataset."""

    files: tuple[str, ...] = ("labels.json",)

    def __init__(self) -> None:
        super().__init__("labels")
        self._classes: dict[str, None] = {}
        self._keys: set[str] = set()

    def add(self, picture: PictureDetections) -> dict[str, Any]:
        detections = fiftyone.fiftyone_detections(picture)
        self._classes.update(dict.fromkeys(prediction.label for prediction in picture.predictions))
        key = self._key(picture)
        self._keys.add(key)
        self._spools["labels"].add(detections, key=key)
        return {"image": picture.size, "detections": detections}

    def _key(self, picture: PictureDetections) -> str:
        """Return what FiftyOne finds the picture by: the name without its ending, or an absolute path with it."""
        if PurePosixPath(picture.name).is_absolute():
            return picture.name
        return picture.stem if picture.stem not in self._keys else str(Path(picture.path).absolute())

    def write(self, name: str, out: IO[str]) -> None:
        out.write('{"made_by": "tao2serve"')
        self.write_members(out)
        out.write("\n}\n")

    def write_members(self, out: IO[str]) -> None:
        out.write(f',\n"classes": {json.dumps(list(self._classes))},\n"labels": ')
        self._list("labels", out, "{}")


_LAYOUTS: Final[Mapping[Format, Callable[[], Layout]]] = {
    "native": NativeLayout,
    "coco": CocoLayout,
    "kitti": KittiLayout,
    "roboflow": RoboflowLayout,
    "fiftyone": FiftyOneLayout,
}


def layout_of(name: Format) -> Layout:
    """Return an empty layout of that name."""
    return _LAYOUTS[name]()
