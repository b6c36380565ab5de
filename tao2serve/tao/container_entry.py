"""Runs one TAO subtask inside NVIDIA's container; it is copied there and started by the container's Python.

Without a key it runs `detectnet_v2 <subtask> …`. With one that command would show the key to everyone who may list
processes, on the host as well. So this runs the module that command runs, in this very process, with the key read
from a file that is removed at once. Only the standard library of Python 3.6 and later: TAO 5.0's container has 3.8.
Beside this file lie `request.json` {"words", "module", "arguments", "gpus", "amp"} and perhaps `key`; `status.json`
{"started", "code"} is written.
"""

import json
import os
import runpy
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

RANK_KEY = "TAO2SERVE_RANK_KEY"  # in the environment of mpirun's processes, for the moment they take to start
# As detectnet_v2 calls it (its entrypoint.py), but for this script in the place of train.py.
MPIRUN = [
    *("mpirun", "--oversubscribe", "--bind-to", "none", "--allow-run-as-root"),
    *("-mca", "pml", "ob1", "-mca", "btl", "^openib", "-np"),
]


def main(folder: Path, *, is_rank: bool = False) -> int:
    """Run the requested subtask and return its exit code."""
    request = json.loads((folder / "request.json").read_text(encoding="utf-8"))
    if is_rank:
        return _module(request, os.environ.pop(RANK_KEY))
    _say(folder, code=None)
    key_file = folder / "key"
    key = None
    if key_file.exists():
        key = key_file.read_text(encoding="utf-8")
        key_file.unlink()
    gpus = request.get("gpus", 1)
    code = 1
    try:
        if key is None:
            code = _call(request["words"], dict(os.environ))
        elif gpus > 1:
            _settings(request)
            words = [*MPIRUN, str(gpus), sys.executable, __file__, "rank"]
            code = _call(words, {**os.environ, RANK_KEY: key})
        else:
            code = _module(request, key)
    finally:
        _say(folder, code=code)
    return code


def _call(words: "list[str]", environment: "dict[str, str]") -> int:
    """Run a program in a group of its own and return its exit code; what this process is told to end on ends it."""
    child = subprocess.Popen(words, env=environment, start_new_session=True)

    def pass_on(number: int, _frame: object) -> None:
        if child.poll() is None:
            os.killpg(child.pid, number)

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, pass_on)
    return child.wait()


def _module(request: "dict[str, Any]", key: str) -> int:
    """Run the requested module as `python -m` would and return its exit code."""
    _settings(request)
    module, arguments = request["module"], request["arguments"]
    sys.argv = [module, *arguments, "--key=" + key]
    try:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    except SystemExit as ended:
        if isinstance(ended.code, str):  # what Python would print
            print(ended.code, file=sys.stderr)  # noqa: T201
        return ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    return 0


def _settings(request: "dict[str, Any]") -> None:
    """Set what the command detectnet_v2 sets before it starts the module."""
    if request.get("amp"):
        os.environ["TF_ENABLE_AUTO_MIXED_PRECISION"] = "1"
    os.environ.setdefault("TF_ENABLE_AUTO_MIXED_PRECISION", "0")
    os.environ.setdefault("CUDA_VISIBLE_DEVICES", ",".join(str(index) for index in range(request.get("gpus", 1))))


def _say(folder: Path, code: "int | None") -> None:
    (folder / "status.json").write_text(json.dumps({"started": True, "code": code}), encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main(Path(__file__).resolve().parent, is_rank=sys.argv[1:] == ["rank"]))
