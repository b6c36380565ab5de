"""One side of the postprocess benchmark: a process that turns grids into boxes when it is told to, and times it.

    python postprocess_worker.py ours|tao_deploy

It reads one JSON object a line, {"grids": FILE.npz, "params": {…}, "rounds": N}, and answers with one: {"wall_s": [of
each image of each round], "processor_s": [the same], "detections": [of each image [class_id, confidence, left, top,
right, bottom] …]}. The file holds `output_cov` (N, C, h, w) and `output_bbox` (N, 4C, h, w); `params` is params.json.
Boxes are in pixels of an image of the network's size. Both sides are given one image at a time.
"""

from __future__ import annotations

import importlib.metadata
import json
import logging
import sys
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from types import SimpleNamespace
from typing import Any, TypeAlias

import numpy as np

Detections: TypeAlias = list[list[float]]
Decode: TypeAlias = Callable[[Any, Any], Any]


def main() -> None:
    """Answer requests until stdin ends."""
    side = {"ours": ours, "tao_deploy": tao_deploy}[sys.argv[1]]
    warnings.simplefilter("ignore")  # NVIDIA's code divides by zero for tiny clusters
    print(json.dumps({"versions": _versions()}), flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        with np.load(request["grids"], allow_pickle=False) as file:
            grids = [file["output_cov"], file["output_bbox"]]
        decode, plain = side(request["params"])
        print(json.dumps(run(decode, plain, grids, rounds=request["rounds"])), flush=True)


def run(decode: Decode, plain: Callable[[Any], Detections], grids: Sequence[Any], *, rounds: int) -> dict[str, Any]:
    """Decode every image `rounds` times; the detections are those of the last round."""
    wall, processor, results = [], [], []
    for _ in range(rounds):
        results = []
        for image in range(len(grids[0])):
            # NVIDIA's code decodes in place: each round is given copies of its own, outside the measured time.
            cov, bbox = (grid[image : image + 1].copy() for grid in grids)
            start, start_processor = time.perf_counter(), time.process_time()
            result = decode(cov, bbox)
            processor.append(time.process_time() - start_processor)
            wall.append(time.perf_counter() - start)
            results.append(result)
    return {"wall_s": wall, "processor_s": processor, "detections": [plain(result) for result in results]}


def ours(document: Mapping[str, Any]) -> tuple[Decode, Callable[[Any], Detections]]:
    """Decode with tao2serve.runtime."""
    from tao2serve.runtime import DetectorParams, postprocess

    params = DetectorParams.from_dict(document)
    size = (params.width, params.height)

    def decode(cov: Any, bbox: Any) -> Any:
        return postprocess(cov[0], bbox[0], params, image_size=size)

    def plain(found: Any) -> Detections:
        columns = (found.class_id[:, None], found.raw_score[:, None], found.xyxy)
        return [[float(value) for value in row] for row in np.concatenate(columns, axis=1)]

    return decode, plain


def tao_deploy(document: Mapping[str, Any]) -> tuple[Decode, Callable[[Any], Detections]]:
    """Decode with NVIDIA's functions, in the order in which its `inference` calls them.

    `mean_cov`, which they know but hard-wire away, is put in where a class asks for it.
    """
    from nvidia_tao_deploy.cv.detectnet_v2 import postprocessor

    logging.getLogger().setLevel(logging.WARNING)
    output_to_clusters = _function_of_inferencer("trt_output_process_fn")
    classes = [entry["name"] for entry in document["classes"]]
    width, height = document["input"]["width"], document["input"]["height"]
    models = {entry["confidence_model"] for entry in document["classes"]}
    if len(models) != 1:
        raise SystemExit("tao_deploy knows one confidence model at a time")
    cluster = _cluster_bboxes()
    postprocessor.cluster_bboxes = lambda *given, **named: cluster(*given, **{**named, "confidence_model": min(models)})

    def decode(cov: Any, bbox: Any) -> Any:
        handler = postprocessor.BboxHandler(
            batch_size=1,
            frame_height=height,
            frame_width=width,
            target_classes=classes,
            postproc_classes=classes,
            classwise_cluster_params=settings,
            bbox_normalizer=document["bbox_scale"],
            bbox_offset=document["bbox_offset"],
            stride=document.get("stride", 16),
        )
        found = output_to_clusters([bbox, cov], classes, [bbox.shape, cov.shape], 1)
        clustered = handler.cluster_detections(handler.bbox_preprocessing(found))
        return handler.postprocess(clustered, 1, [(width, height)], (width, height), numbers)[0], clustered, cov

    def plain(result: Any) -> Detections:
        return [[row[0] - 1, *row[1:]] for row in result[0].tolist() if row[1:] != [0.0] * 5]

    settings = {entry["name"]: SimpleNamespace(clustering_config=_clustering(entry)) for entry in document["classes"]}
    numbers = {name: index + 1 for index, name in enumerate(classes)}
    return decode, plain


def _cluster_bboxes() -> Callable[..., Any]:
    from nvidia_tao_deploy.cv.detectnet_v2.utils import cluster_bboxes

    return cluster_bboxes  # type: ignore[no-any-return]


def _clustering(entry: Mapping[str, Any]) -> SimpleNamespace:
    """NVIDIA reads these attributes of a protobuf message, whose floats are float32."""
    floats = {name: float(np.float32(value)) for name, value in entry.items() if isinstance(value, float)}
    return SimpleNamespace(**{**entry, **floats, "clustering_algorithm": entry["clustering"]})


def _function_of_inferencer(name: str) -> Callable[..., Any]:
    """Take one function of NVIDIA's inferencer.py, which imports TensorRT for the others."""
    import ast
    from pathlib import Path

    import nvidia_tao_deploy

    path = Path(nvidia_tao_deploy.__file__).parent / "cv" / "detectnet_v2" / "inferencer.py"
    tree = ast.parse(path.read_text(encoding="utf-8"))
    tree.body = [node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == name]
    space: dict[str, Any] = {"np": np}
    exec(compile(tree, str(path), "exec"), space)
    return space[name]  # type: ignore[no-any-return]


def _versions() -> dict[str, str]:
    kept = ("nvidia-tao-deploy", "numpy", "scikit-learn", "tao2serve")
    found = {name.lower(): name for name in kept}
    return {
        item.metadata["Name"]: item.version
        for item in importlib.metadata.distributions()
        if item.metadata["Name"].lower().replace("_", "-") in found
    }


if __name__ == "__main__":
    main()
