"""Make the sample detector: draw scenes, train, prune, retrain, and write what TAO would have left.

    python run.py scenes  --work WORK
    python run.py train   --work WORK
    python run.py retrain --work WORK

`WORK` keeps scenes and checkpoints; it needs about 1.2 GB.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from dataset import TRAINING_SEEDS, VALIDATION_SEEDS, SceneSet, render
from network import DetectNet, resnet_plan
from prune import pruned
from recipe import CLASS_RECIPES, PRUNED, UNPRUNED, Recipe
from train import train

TRAINING_SCENES, VALIDATION_SCENES = 4000, 300


def _scenes(work: Path) -> None:
    for name, first, count in (
        ("validation", VALIDATION_SEEDS, VALIDATION_SCENES),
        ("training", TRAINING_SEEDS, TRAINING_SCENES),
    ):
        render(first, count, width=UNPRUNED.width, height=UNPRUNED.height).save(work / f"{name}.npz")


def new_network(recipe: Recipe) -> DetectNet:
    torch.manual_seed(recipe.seed)
    plan = resnet_plan(
        recipe.num_layers, recipe.widths, stem=recipe.stem, classes=len(CLASS_RECIPES), input_chw=recipe.input_chw
    )
    return DetectNet(plan)


def _train(network: DetectNet, recipe: Recipe, work: Path) -> None:
    train(
        network,
        recipe,
        CLASS_RECIPES,
        training=SceneSet.load(work / "training.npz"),
        validation=SceneSet.load(work / "validation.npz"),
        results=work / recipe.name,
    )
    torch.save({"plan": network.plan, "weights": network.state_dict()}, work / recipe.name / "final.pt")


def load_network(work: Path, recipe: Recipe) -> DetectNet:
    saved = torch.load(work / recipe.name / "final.pt", weights_only=False)
    network = DetectNet(saved["plan"])
    network.load_state_dict(saved["weights"])
    return network.eval()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("step", choices=("scenes", "train", "retrain"))
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    arguments.work.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(arguments.threads)
    if arguments.step == "scenes":
        _scenes(arguments.work)
    elif arguments.step == "train":
        _train(new_network(UNPRUNED), UNPRUNED, arguments.work)
    else:
        _train(pruned(load_network(arguments.work, UNPRUNED)), PRUNED, arguments.work)


if __name__ == "__main__":
    main()
