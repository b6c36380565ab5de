"""A stand-in for NVIDIA's `tao` launcher, to play the container that no test machine has. No code of NVIDIA's.

It takes the command line tao2serve builds, finds every path through the mounts file it is pointed to, as the
container would see it, and answers with the ONNX file that FAKE_TAO_ONNX names. What it met goes to FAKE_TAO_RECORD.
"""

from __future__ import annotations

import json
import os
import shutil
import stat
import sys
import time
from pathlib import Path


def main(words: list[str]) -> int:
    if words == ["info"]:
        print("Configuration of the TAO Toolkit Instance\ntoolkit_version: 6.26.3")
        return 0
    if "FAKE_TAO_SLEEP" in os.environ:
        return sleep()
    assert words[:4] == ["model", "detectnet_v2", "run", "python"], words
    mounts_file = Path(os.environ["LAUNCHER_MOUNTS"])
    document = json.loads(mounts_file.read_text())

    def outside(path: str) -> Path:
        """The file of this machine that the container sees at `path`: the deepest mount shows it."""
        holding = [mount for mount in document["Mounts"] if Path(path).is_relative_to(mount["destination"])]
        mount = max(holding, key=lambda mount: len(mount["destination"]))
        return Path(mount["source"]) / Path(path).relative_to(mount["destination"])

    private = outside(words[4]).parent
    request = json.loads((private / "request.json").read_text())
    arguments = dict(zip(request["arguments"][::2], request["arguments"][1::2], strict=True))
    key_file = private / "key"
    record = {
        "words": words,
        "module": request["module"],
        "arguments": arguments,
        "mounts": document,
        "model": outside(arguments["--model"]).read_bytes().decode(),
        "key": key_file.read_text(),
        "modes": [stat.S_IMODE(path.stat().st_mode) for path in (private, key_file, mounts_file)],
        "stdin_is_terminal": os.isatty(0),
        "variables": sorted(os.environ),
    }
    Path(os.environ["FAKE_TAO_RECORD"]).write_text(json.dumps(record))
    written = outside(arguments["--output_file"])
    assert not written.exists()
    shutil.copyfile(os.environ["FAKE_TAO_ONNX"], written)
    (private / "status.json").write_text('{"started": true, "code": 0}')
    return 0


def sleep() -> int:
    """Run until SIGINT, upon which the real launcher stops its container."""
    marker = Path(os.environ["FAKE_TAO_SLEEP"])
    print("Epoch 1", flush=True)
    try:
        marker.write_text(str(os.getpid()))
        time.sleep(120)
    except KeyboardInterrupt:
        marker.write_text("interrupted")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
