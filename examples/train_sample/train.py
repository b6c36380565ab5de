"""Train one network with DetectNet_v2's costs; leave checkpoints and the curves behind."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from augment import as_input, augmented_batch
from dataset import SceneSet
from network import DetectNet
from recipe import ClassRecipe, Recipe, learning_rate
from targets import STRIDE, rasterize
from torch.nn import functional

__all__ = ["Costs", "costs_of", "predict", "train"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Costs:
    """`parts[class name][cov | bbox]` are means over all cells; `task` is their weighted sum."""

    parts: dict[str, dict[str, torch.Tensor]]
    task: torch.Tensor


def costs_of(
    logits: torch.Tensor,
    bbox: torch.Tensor,
    coverage_target: torch.Tensor,
    bbox_target: torch.Tensor,
    classes: Sequence[ClassRecipe],
) -> Costs:
    """Weighted binary cross entropy on coverage, L1 on the box within coverage, both averaged over the grid."""
    parts: dict[str, dict[str, torch.Tensor]] = {}
    task = logits.new_zeros(())
    for k, recipe in enumerate(classes):
        target = coverage_target[:, k]
        weight = torch.where(target > 0, recipe.coverage_foreground_weight, 1 - recipe.coverage_foreground_weight)
        cov = functional.binary_cross_entropy_with_logits(logits[:, k], target, weight=weight)
        distance = (bbox[:, 4 * k : 4 * k + 4] - bbox_target[:, 4 * k : 4 * k + 4]).abs().sum(1)
        box = (distance * target).mean()
        parts[recipe.name] = {"cov": cov, "bbox": box}
        task = task + recipe.class_weight * (recipe.cov_weight * cov + recipe.bbox_weight * box)
    return Costs(parts=parts, task=task)


def predict(network: DetectNet, images: np.ndarray, *, batch: int = 32) -> tuple[np.ndarray, np.ndarray]:
    """Run (N, H, W, 3) uint8 pictures in float32: coverage (N, K, h, w) after the sigmoid, bbox (N, 4K, h, w)."""
    network.eval()
    coverages, boxes = [], []
    with torch.inference_mode():
        for start in range(0, len(images), batch):
            logits, bbox = network(as_input(images[start : start + batch]))
            coverages.append(torch.sigmoid(logits).numpy())
            boxes.append(bbox.numpy())
    return np.concatenate(coverages), np.concatenate(boxes)


def _validation_cost(
    network: DetectNet, scenes: SceneSet, classes: Sequence[ClassRecipe], recipe: Recipe, *, batch: int = 32
) -> float:
    """Mean task cost over unaugmented pictures."""
    network.eval()
    grid, total = (recipe.height // STRIDE, recipe.width // STRIDE), 0.0
    with torch.inference_mode():
        for start in range(0, len(scenes.images), batch):
            boxes = scenes.boxes[start : start + batch]
            targets = rasterize(boxes, classes, grid=grid, scale=recipe.bbox_scale, offset=recipe.bbox_offset)
            outputs = network(as_input(scenes.images[start : start + batch]))
            total += float(costs_of(*outputs, *map(torch.from_numpy, targets), classes).task) * len(boxes)
    return total / len(scenes.images)


def train(
    network: DetectNet,
    recipe: Recipe,
    classes: Sequence[ClassRecipe],
    *,
    training: SceneSet,
    validation: SceneSet,
    results: Path,
) -> None:
    """Train in place; write `results/model.epoch-N.pt` at each validated epoch and `results/history.json`.

    The forward pass runs in bfloat16 where the processor has it (twice as fast); weights stay float32.
    """
    torch.manual_seed(recipe.seed)
    rng = np.random.default_rng(recipe.seed)
    network.to(memory_format=torch.channels_last)
    optimizer = torch.optim.Adam(network.parameters(), lr=recipe.min_learning_rate, betas=(0.9, 0.999), eps=1e-8)
    kernels = [p for n, p in network.named_parameters() if "conv" in n or "output" in n]
    grid = (recipe.height // STRIDE, recipe.width // STRIDE)
    steps_per_epoch = len(training.images) // recipe.batch_size
    total_steps, step, started = recipe.num_epochs * steps_per_epoch, 0, time.time()
    scalars: dict[str, list[tuple[int, float]]] = {}
    epochs: list[dict[str, float]] = []
    results.mkdir(parents=True, exist_ok=True)
    for epoch in range(1, recipe.num_epochs + 1):
        network.train()
        order, losses = rng.permutation(len(training.images)), []
        for chunk in range(steps_per_epoch):
            rate = learning_rate(recipe, step / total_steps)
            for group in optimizer.param_groups:
                group["lr"] = rate
            indices = order[chunk * recipe.batch_size : (chunk + 1) * recipe.batch_size]
            images, boxes = augmented_batch(training, indices, rng, recipe)
            targets = rasterize(boxes, classes, grid=grid, scale=recipe.bbox_scale, offset=recipe.bbox_offset)
            with torch.autocast("cpu", torch.bfloat16):
                outputs = network(images)
            costs = costs_of(*outputs, *map(torch.from_numpy, targets), classes)
            regularization = recipe.regularizer_weight * sum((k.abs().sum() for k in kernels), start=torch.zeros(()))
            total = costs.task + regularization
            optimizer.zero_grad(set_to_none=True)
            total.backward()
            optimizer.step()
            losses.append(float(total.detach()))
            values = {"total_cost": total, "scaled_total_cost": total, "task_cost": costs.task,
                      "regularization_cost": regularization, "learning_rate": torch.tensor(rate)}  # fmt: skip
            for name, parts in costs.parts.items():
                values |= {f"mean_cost_{name}_cov": parts["cov"], f"mean_cost_{name}_bbox": parts["bbox"]}
            for tag, value in values.items():
                scalars.setdefault(tag, []).append((step, float(value.detach())))
            step += 1
        row = {"epoch": epoch, "loss": float(np.mean(losses)), "learning_rate": rate, "time": time.time()}
        if epoch % recipe.validation_period == 0 or epoch == recipe.num_epochs:
            row["validation_cost"] = _validation_cost(network, validation, classes, recipe)
            torch.save(network.state_dict(), results / f"model.epoch-{epoch}.pt")
        epochs.append(row)
        spent = time.time() - started
        print(f"epoch {epoch}: loss {row['loss']:.4f} {row.get('validation_cost', '')} after {spent:.0f} s", flush=True)
    history = {"started": started, "steps_per_epoch": steps_per_epoch, "epochs": epochs, "scalars": scalars}
    (results / "history.json").write_text(json.dumps(history))
