"""Results folders of finished trainings, made of the sample's: with checkpoints, pruned files, logs."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from tao2serve.sandbox.samples import SAMPLE
from tao2serve.sandbox.tao_console import console_log, read_history


def copied(run: str, folder: Path) -> Path:
    """A copy of one of the sample's results folders, `unpruned` or `pruned`."""
    shutil.copytree(SAMPLE / run, folder)
    return folder


def other_content(source: Path, target: Path, *, mark: str, pad_bytes: int = 0) -> Path:
    """A copy of weights with another SHA-256, and as many bytes more as are asked for; the network is the same."""
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)
    with h5py.File(target, "r+") as file:
        file.attrs["mark"] = mark
        if pad_bytes:
            file.create_dataset("padding", data=np.random.default_rng(0).integers(0, 256, pad_bytes, dtype=np.uint8))
    return target


def with_checkpoints(folder: Path, epochs: Iterable[int], *, pad_bytes: int = 0) -> Path:
    """Add checkpoints of these epochs to a results folder."""
    (final,) = (folder / "weights").glob("*.hdf5")
    for epoch in epochs:
        other_content(final, folder / f"model.epoch-{epoch}.hdf5", mark=f"epoch {epoch}", pad_bytes=pad_bytes)
    return folder


def pruned_from(source: Path, target: Path, *, filters: int) -> Path:
    """A copy of weights with only the first filters in its first convolution, as TAO's pruning would leave that."""
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)
    with h5py.File(target, "r+") as file:
        group = file["model_weights"]["conv1"]["conv1"]
        kernel = group["kernel:0"][..., :filters]
        del group["kernel:0"]
        group.create_dataset("kernel:0", data=kernel)
    return target


def console(folder: Path) -> str:
    """What TAO printed in a training, told from its status.json and scalars."""
    records: list[dict[str, Any]] = [json.loads(line) for line in (folder / "status.json").read_text().splitlines()]
    curves = json.loads((folder / "scalars.json").read_text())
    pieces = console_log(
        read_history(records), losses=curves["total_cost"], rates=curves["learning_rate"], steps_per_epoch=250
    )
    return "\n".join(pieces) + "\n"
