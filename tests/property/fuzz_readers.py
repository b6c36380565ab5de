"""Mutate model and spec files and read them; run as a program, so that a crash or hang stays in here.

Memory is bounded, because HDF5 believes a damaged length of 4 GiB until the read fails. Prints one line per
file kind: how many were refused, how many were read. Exits 1 on any exception but InputError.
"""

from __future__ import annotations

import faulthandler
import logging
import random
import resource
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

from damage import mutate

from tao2serve.decoding import params_from_file, read_grids
from tao2serve.errors import InputError
from tao2serve.export.convert import export_onnx
from tao2serve.export.evaluation import accuracy_settings
from tao2serve.export.signature import read_signature
from tao2serve.parity.labels import read_labels
from tao2serve.tao.clustering_file import read_clustering
from tao2serve.tao.notes import notes_on
from tao2serve.tao.params import to_params
from tao2serve.tao.spec import read_spec
from tao2serve.tao.status import read_status
from tao2serve.tao.unread_fields import unread_fields


def read_everything_in_a_spec(path: Path) -> None:
    """Look for misspelt fields too; that must work before the file is known to be sound."""
    unread_fields(path)
    spec = read_spec(path)
    notes_on(spec)
    to_params(spec)
    accuracy_settings(spec)


def main(folder: Path, rounds: int, seed: int) -> int:
    readers: dict[str, Callable[[Path], object]] = {
        "model.hdf5": lambda path: export_onnx(path, output=folder / "out.onnx"),
        "spec.txt": read_everything_in_a_spec,
        "clustering.prototxt": read_clustering,
        "label.txt": read_labels,
        "model.onnx": read_signature,
        "status.json": read_status,
        "params.json": params_from_file,
        "raw.npz": read_grids,
    }
    failures = 0
    for name, read in readers.items():
        content = (folder / name).read_bytes()
        target = folder / f"mutated{Path(name).suffix}"
        refused = 0
        for number in range(rounds):
            chance = random.Random(f"{seed} {name} {number}")
            target.write_bytes(mutate(content, chance))
            faulthandler.dump_traceback_later(15, exit=True)
            try:
                read(target)
            except InputError:
                refused += 1
            except Exception:
                failures += 1
                print(f"--- {name} seed {seed} round {number}")
                traceback.print_exc(file=sys.stdout)
            faulthandler.cancel_dump_traceback_later()
        print(f"{name}: {refused} refused, {rounds - refused} read")
    return 1 if failures else 0


if __name__ == "__main__":
    faulthandler.enable()
    logging.disable()
    resource.setrlimit(resource.RLIMIT_AS, (4 << 30, 4 << 30))
    sys.exit(main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])))
