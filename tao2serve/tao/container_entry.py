"""Runs one TAO subtask inside NVIDIA's container; the launcher's Python copies this file there and starts it.

`detectnet_v2 <subtask> -k KEY` would show the key to everyone who may list processes, on the host as well. So
this runs the module that command runs, in this very process, with the key read from a file that is removed at
once. Only the standard library of Python 3.6 and later: TAO 5.0's container has 3.8. Beside this file lie
`request.json` {"module", "arguments"} and `key`; `status.json` {"started", "code"} is written.
"""

import json
import os
import runpy
import sys
from pathlib import Path


def main(folder: Path) -> int:
    """Run the requested module as `python -m` would and return its exit code."""
    _say(folder, code=None)
    request = json.loads((folder / "request.json").read_text(encoding="utf-8"))
    key_file = folder / "key"
    key = key_file.read_text(encoding="utf-8")
    key_file.unlink()
    # What the command detectnet_v2 sets before it starts the module.
    os.environ.setdefault("TF_ENABLE_AUTO_MIXED_PRECISION", "0")
    os.environ.setdefault("CUDA_VISIBLE_DEVICES", "0")
    sys.argv = [request["module"], *request["arguments"], "--key=" + key]
    code = 1
    try:
        runpy.run_module(request["module"], run_name="__main__", alter_sys=True)
        code = 0
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
        if isinstance(ended.code, str):  # what Python would print
            print(ended.code, file=sys.stderr)  # noqa: T201
    finally:
        _say(folder, code=code)
    return code


def _say(folder: Path, code: "int | None") -> None:
    (folder / "status.json").write_text(json.dumps({"started": True, "code": code}), encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main(Path(__file__).resolve().parent))
