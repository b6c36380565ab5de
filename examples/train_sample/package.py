"""Turn a finished run into the folder TAO would have left, and prove that the weights say the same.

python package.py --work WORK --output tao2serve/sandbox/sample
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import torch
from accuracy import average_precision
from augment import as_input
from dataset import SceneSet
from keras_hdf5 import write_hdf5
from network import DetectNet
from numpy_forward import run_hdf5
from recipe import CLASS_RECIPES, PRUNED, UNPRUNED, Clustering, Recipe
from run import load_network
from tao_files import experiment_spec, scalars, status_log
from thresholds import MIN_IOU, choose_clusterings, detections_of, truths_of
from train import predict

_MAX_ERROR = 1e-4


def _precisions(
    network: DetectNet, recipe: Recipe, clusterings: dict[str, Clustering], validation: SceneSet
) -> dict[str, float]:
    grids = predict(network, validation.images)
    return {
        entry.name: average_precision(
            detections_of(grids, k, clusterings[entry.name], recipe),
            truths_of(validation.boxes, k),
            min_iou=MIN_IOU,
        )
        for k, entry in enumerate(CLASS_RECIPES)
    }


def _checkpoint_precisions(
    recipe: Recipe, network: DetectNet, clusterings: dict[str, Clustering], validation: SceneSet, results: Path
) -> dict[int, dict[str, float]]:
    """Average precision of each kept checkpoint, all with the clustering the spec ends up with."""
    precisions: dict[int, dict[str, float]] = {}
    for checkpoint in sorted(results.glob("model.epoch-*.pt"), key=lambda p: int(p.stem.rsplit("-", 1)[1])):
        at_epoch = DetectNet(network.plan)
        at_epoch.load_state_dict(torch.load(checkpoint, weights_only=True))
        epoch = int(checkpoint.stem.rsplit("-", 1)[1])
        precisions[epoch] = _precisions(at_epoch, recipe, clusterings, validation)
        print(recipe.name, "epoch", epoch, {k: round(v, 4) for k, v in precisions[epoch].items()}, flush=True)
    return precisions


def _largest_error(network: DetectNet, file: Path, images: np.ndarray) -> float:
    """Largest difference of coverage, or of bbox in units of its scale, between the file and the network."""
    coverage, bbox = run_hdf5(file, as_input(images).numpy())
    expected = predict(network, images)
    return max(float(np.abs(coverage - expected[0]).max()), float(np.abs(bbox - expected[1]).max()))


def _package(recipe: Recipe, work: Path, folder: Path, *, start_from: str = "", scope_suffix: str = "") -> None:
    network, validation = load_network(work, recipe), SceneSet.load(work / "validation.npz")
    weights = folder / "weights" / f"{recipe.name}.hdf5"
    write_hdf5(network, weights, regularizer=recipe.regularizer_weight, scope_suffix=scope_suffix)
    error = _largest_error(network, weights, validation.images[:2])
    print(f"{weights.name}: {network.parameter_count()} parameters, largest error {error:.2e}")
    if error > _MAX_ERROR:
        raise SystemExit(f"{weights.name} differs from the network it was written from by {error:.2e}")

    clusterings = choose_clusterings(predict(network, validation.images), validation.boxes, CLASS_RECIPES, recipe)
    (folder / "experiment_spec.txt").write_text(
        experiment_spec(recipe, CLASS_RECIPES, clusterings, start_from=start_from)
    )
    history = json.loads((work / recipe.name / "history.json").read_text())
    precisions = _checkpoint_precisions(recipe, network, clusterings, validation, work / recipe.name)
    (folder / "status.json").write_text(
        status_log(
            history,
            precisions,
            size_mb=weights.stat().st_size / 2**20,
            parameters=network.parameter_count(),
        )
    )
    (folder / "scalars.json").write_text(scalars(history))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    arguments = parser.parse_args()
    torch.set_num_threads(2)
    _package(UNPRUNED, arguments.work, arguments.output / "unpruned")
    if (arguments.work / PRUNED.name / "final.pt").is_file():
        _package(
            PRUNED,
            arguments.work,
            arguments.output / "pruned",
            start_from=f"street/pruned/{PRUNED.name}.hdf5",
            scope_suffix="_1",
        )


if __name__ == "__main__":
    main()
