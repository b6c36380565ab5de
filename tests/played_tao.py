"""Plays the command detectnet_v2 of NVIDIA's containers, which no test machine can run. No code of NVIDIA's.

It leaves the files that the real subtasks leave, and prints what they print, as docs/tao.md and docs/training.md have
it; it trains nothing. What it met goes to `record.jsonl`. A file `play` beside that says what it shall do:
`{"SUBTASK": "fail" | "refuse" | "die" | "wait"}`.
"""

from __future__ import annotations

import json
import os
import re
import signal
import sys
import time
from pathlib import Path


def outside(path: str) -> Path:
    """The file of this machine that the container sees there: the deepest bind shows it."""
    binds = [
        bind.rsplit(":", 1)[0] if bind.endswith((":rw", ":ro")) else bind
        for bind in json.loads(os.environ["PLAYED_BINDS"])
    ]
    pairs = [bind.rpartition(":")[::2] for bind in binds]
    holding = [pair for pair in pairs if Path(path).is_relative_to(pair[1])]
    assert holding, f"no bind shows {path}: {pairs}"
    source, destination = max(holding, key=lambda pair: len(pair[1]))
    return Path(source) / Path(path).relative_to(destination)


def say(folder: Path, status: str, message: str, *, fresh: bool = False) -> None:
    with (folder / "status.json").open("w" if fresh else "a") as file:
        file.write(json.dumps({"date": "1/1/2025", "time": "0:0:0", "status": status, "message": message}) + "\n")


def main(words: list[str]) -> int:
    folder = Path(os.environ["PLAYED_FOLDER"])
    subtask, given = words[0], words[1:]
    options = {given[at]: given[at + 1] for at in range(len(given) - 1) if given[at].startswith("-")}
    with (folder / "record.jsonl").open("a") as file:
        variables = {name: value for name, value in os.environ.items() if not name.startswith("PLAYED_")}
        file.write(json.dumps({"words": words, "variables": variables, "uid": os.getuid()}) + "\n")
    play = json.loads((folder / "play").read_text()) if (folder / "play").exists() else {}
    results = outside(options.get("-r") or options["--results_dir"])
    assert results.is_dir()
    say(results, "STARTED", f"Starting {subtask}", fresh=subtask != "train")
    print(f"2025-01-01 [TAO Toolkit] [INFO] root: {subtask} begins", flush=True)
    print(f"uploading with {os.environ.get('CLEARML_API_SECRET_KEY')}", flush=True)
    wanted = play.get(subtask, "")
    if wanted == "fail":
        raise ValueError("tfrecords are broken")
    if wanted == "refuse":  # as TAO's spec validator: sys.exit(1), which train.py takes for an interrupt
        print(
            "INFO: Spec file validation failed.\nExperiment Spec Setting Error: num_epochs should > 0. Wrong value: 0"
        )
        say(results, "FAILURE", "Training was interrupted")
        return 0
    if wanted == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    if wanted == "wait":
        (folder / "waiting").write_text(str(os.getpid()))
        time.sleep(120)
    leave(subtask, options, results)
    say(results, "SUCCESS", f"{subtask} finished successfully.")
    print("Execution status: PASS")
    return 0


def leave(subtask: str, options: dict[str, str], results: Path) -> None:
    """Leave the files that the subtask leaves."""
    if subtask == "train":
        spec = outside(options["-e"]).read_text()
        loaded = re.search(r'pretrained_model_file: "(.*)"', spec)
        if loaded and "load_graph: true" in spec:
            assert outside(loaded[1]).is_file()
        weights = results / "weights"
        weights.mkdir(exist_ok=True)
        (weights / f"{options['-n']}.hdf5").write_bytes(b"weights")
    elif subtask == "evaluate":
        assert outside(options["-m"]).is_file()
        print("Validation cost: 0.0001\nMean average_precision (in %): 81.2500\n")
        print("+------------+--------------------------+\n| class name | average precision (in %) |")
        print("+------------+--------------------------+\n|    car     |          81.25           |")
    else:
        assert outside(options["-m"]).is_file()
        output = outside(options.get("--engine_file") or options["-o"])
        assert not (subtask == "export" and output.exists())
        output.write_bytes(b"model")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
