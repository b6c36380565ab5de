"""Give damaged files to the command line; run as a program, so that a crash or a hang stays in here.

    python fuzz_commands.py FOLDER ROUNDS SEED [SHARE OF]

The sound files are written into FOLDER first. Each round damages one, runs a command with `--json` in this
process and asks: exit code 0 or 3, exactly one JSON document on stdout, files written only on 0. Memory is bounded,
because HDF5 believes a damaged length of 4 GiB until the read fails. Prints how often each code was seen for each
kind of damage; exits 1 if anything else was. With SHARE and OF only every OFth round runs, so that several can run
at once.
"""

from __future__ import annotations

import collections
import faulthandler
import json
import logging
import os
import random
import resource
import shutil
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import onnx
import typer
from damage import damage_bytes, damage_keras, damage_onnx, damage_spec
from keras_files import KerasFile
from onnx_files import like_keras2onnx

from tao2serve.cli import main as command_line
from tao2serve.export.accept import accept_onnx
from tao2serve.export.convert import export_onnx
from tao2serve.export.lean import make_lean
from tao2serve.runtime import DetectorParams
from tao2serve.tao.params import to_params
from tao2serve.tao.spec import read_spec

MEMORY_BYTES = 4 << 30
HANG_S = 60
WANTED = (0, 3)

Damage = Callable[[Path, Path, random.Random], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """One kind of damage: which of the sound files, what is done to it, how often of all rounds."""

    files: tuple[str, ...]
    damage: Damage
    weight: int


SPEC = """
augmentation_config { preprocessing {
  output_image_width: 48
  output_image_height: 32
  output_image_channel: 3 } }
model_config { arch: "resnet" num_layers: 18 objective_set { bbox { scale: 35.0 offset: 0.5 } cov { } } }
cost_function_config { target_classes { name: "person" } target_classes { name: "bag" } }
postprocessing_config { target_class_config { key: "default" value: { clustering_config {
  clustering_algorithm: DBSCAN
  coverage_threshold: 0.005
  dbscan_eps: 0.15
  dbscan_min_samples: 1
  minimum_bounding_box_height: 4 } } } }
"""

ONNX_FILES = ("plain.onnx", "rich.onnx", "keras2onnx.onnx", "lean.onnx")
KINDS = {
    "HDF5 bytes": Kind(files=("plain.hdf5", "rich.hdf5"), damage=damage_bytes, weight=3),
    "HDF5 meaning": Kind(files=("plain.hdf5", "rich.hdf5"), damage=damage_keras, weight=3),
    "ONNX bytes": Kind(files=ONNX_FILES, damage=damage_bytes, weight=3),
    "ONNX meaning": Kind(files=ONNX_FILES, damage=damage_onnx, weight=3),
    "spec bytes": Kind(files=("experiment_spec.txt",), damage=damage_bytes, weight=1),
    "spec words": Kind(files=("experiment_spec.txt",), damage=damage_spec, weight=1),
    # A place for the records and headers of .plan files, once engines are built.
}


def write_sound_files(folder: Path) -> None:
    """Write two small detectors, their ONNX files, one as of keras2onnx, a lean one, and an experiment spec."""
    _plain(folder / "plain.hdf5")
    _rich(folder / "rich.hdf5")
    for name in ("plain", "rich"):
        export_onnx(folder / f"{name}.hdf5", output=folder / f"{name}.onnx")
    onnx.save(like_keras2onnx(onnx.load(str(folder / "rich.onnx"))), str(folder / "keras2onnx.onnx"))
    (folder / "experiment_spec.txt").write_text(SPEC)
    params = DetectorParams.from_dict(to_params(read_spec(folder / "experiment_spec.txt")))
    make_lean(
        accept_onnx(folder / "plain.onnx"), output=folder / "lean.onnx", uint8_input=True, absolute_boxes=True,
        params=params,
    )  # fmt: skip


def _plain(path: Path) -> None:
    """A detector of convolutions and one residual block, stride 16."""
    file = KerasFile(input_chw=(3, 32, 48))
    x = file.conv("conv1", file.input, 3, 4, kernel=(7, 7), strides=(2, 2))
    x = file.layer("activation_1", "Activation", {"activation": "relu"}, [file.batch_norm("bn_conv1", x, 4)])
    x = file.conv("conv2", x, 4, 4, strides=(2, 2), activation="relu")
    y = file.conv("block_1a_conv_1", x, 4, 4, strides=(2, 2))
    s = file.conv("block_1a_conv_shortcut", x, 4, 4, kernel=(1, 1), strides=(2, 2), padding="valid")
    x = file.layer("add_1", "Add", {}, [y, s])
    x = file.conv("conv3", x, 4, 4, strides=(2, 2), activation="relu")
    file.heads(x, 4)
    file.write(path)


def _rich(path: Path) -> None:
    """A detector with a layer of every other kind the exporter knows, stride 16 as well."""
    file = KerasFile(input_chw=(3, 32, 48))
    x = file.layer("pad", "ZeroPadding2D", {"padding": [[1, 1], [1, 1]]}, [file.input])
    x = file.conv("conv1", x, 3, 4, strides=(2, 2), padding="valid", activation="swish")
    x = file.layer("pool1", "MaxPooling2D", {"pool_size": [3, 3], "strides": [2, 2], "padding": "same"}, [x])
    x = file.layer("leaky", "LeakyReLU", {"alpha": 0.1}, [x])
    x = file.depthwise("depthwise", x, 4, strides=(2, 2), padding="same")
    y = file.layer("relu6", "ReLU", {"max_value": 6.0}, [x])
    x = file.layer("joined", "Concatenate", {"axis": 1}, [x, y])
    gate = file.layer("mean", "GlobalAveragePooling2D", {}, [x])
    gate = file.layer("shape", "Reshape", {"target_shape": [-1, 1, 1]}, [gate])
    gate = file.conv("gate", gate, 8, 8, kernel=(1, 1), activation="sigmoid")
    x = file.layer("gated", "Multiply", {}, [x, gate])
    x = file.layer("drop", "Dropout", {"rate": 0.2}, [x])
    x = file.layer("quantized", "QDQ", {"bitwidth": 8}, [x])
    x = file.layer("pool2", "AveragePooling2D", {"pool_size": [2, 2], "padding": "same"}, [x])
    x = file.batch_norm("norm", x, 8)
    file.heads(x, 8)
    file.write(path)


def commands(folder: Path, damaged: Path, output: Path) -> list[list[str]]:
    """The command lines a damaged file is given to."""
    model, spec = (
        (folder / "plain.onnx", damaged) if damaged.suffix == ".txt" else (damaged, folder / "experiment_spec.txt")
    )
    return [
        ["export", str(model), "--spec", str(spec), "-o", str(output), "--json"],
        ["inspect", str(damaged), "--json"],
    ]


class Stdout:
    """File descriptor 1, kept in memory: what C libraries write there counts as well."""

    def __init__(self) -> None:
        self._file = os.memfd_create("stdout")
        self.real = os.fdopen(os.dup(1), "w")
        os.dup2(self._file, 1)

    def taken(self) -> str:
        """Return what was written since the last call."""
        sys.stdout.flush()
        text = os.pread(self._file, 1 << 24, 0).decode("utf-8", "replace")
        os.ftruncate(self._file, 0)
        os.lseek(self._file, 0, os.SEEK_SET)
        return text


def judge(code: int, text: str, output: Path) -> str:
    """Return what is wrong with how a command ended, "" if nothing."""
    if code not in WANTED:
        return f"exit {code}"
    try:
        document = json.loads(text)
    except ValueError as error:
        return f"stdout is not one JSON document: {error}"
    if (document.get("outcome") == "error") != (code != 0):
        return f"exit {code} with outcome {document.get('outcome')!r}"
    if code != 0 and any(output.iterdir()):
        return f"exit {code}, and files were written: {[path.name for path in output.iterdir()]}"
    return ""


def main(folder: Path, rounds: int, seed: int, share: int, of: int) -> int:
    write_sound_files(folder)
    stdout = Stdout()
    # Typer builds its tree of commands anew in each call, which would take two thirds of the time.
    command_line.app = typer.main.get_command(command_line.app)
    counts: collections.Counter[tuple[str, int]] = collections.Counter()
    failures = 0
    names = [name for name, kind in KINDS.items() for _ in range(kind.weight)]
    scratch = Path(tempfile.mkdtemp(dir=folder))
    for number in range(share, rounds, of):
        chance = random.Random(f"{seed} {number}")
        name = names[number % len(names)]
        source = folder / chance.choice(KINDS[name].files)
        damaged = scratch / f"damaged{source.suffix}"
        KINDS[name].damage(source, damaged, chance)
        for line in commands(folder, damaged, scratch / "out"):
            shutil.rmtree(scratch / "out", ignore_errors=True)
            (scratch / "out").mkdir()
            faulthandler.dump_traceback_later(HANG_S, exit=True)
            code = command_line.run(line)
            faulthandler.cancel_dump_traceback_later()
            text = stdout.taken()
            counts[f"{name}, {line[0]}", code] += 1
            wrong = judge(code, text, scratch / "out")
            if wrong:
                failures += 1
                kept = folder / f"failed-{seed}-{number}-{line[0]}{source.suffix}"
                shutil.copyfile(damaged, kept)
                what = f"{name} of {source.name}, {line[0]}: {wrong}"
                print(f"--- round {number} of seed {seed}: {what}\n{text[:2000]}", file=stdout.real)
    for (what, code), count in sorted(counts.items()):
        print(f"{what}: exit {code} in {count}", file=stdout.real)
    stdout.real.flush()
    return 1 if failures else 0


if __name__ == "__main__":
    faulthandler.enable()
    logging.disable()
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    first, *numbers = sys.argv[1:]
    rounds, seed, share, of = (*map(int, numbers), 0, 1)[:4]
    sys.exit(main(Path(first), rounds, seed, share, of))
