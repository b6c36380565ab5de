"""The script that runs in NVIDIA's container, with programs in the place of NVIDIA's."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tao2serve.tao import container_entry

pytestmark = pytest.mark.integration

SECRET = "a'b\"c\\d"


@pytest.fixture
def kept_signals() -> Iterator[None]:
    """The script passes signals on from then on; the tests' own handlers come back."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder the container is given, with the key."""
    for name in ("TF_ENABLE_AUTO_MIXED_PRECISION", "CUDA_VISIBLE_DEVICES"):
        monkeypatch.setenv(name, "before")
    (tmp_path / "key").write_text(SECRET)
    return tmp_path


def _tool(folder: Path, name: str, script: str) -> None:
    path = folder / "bin" / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


def test_without_a_key_the_command_itself_is_run(
    folder: Path, monkeypatch: pytest.MonkeyPatch, kept_signals: None
) -> None:
    """`detectnet_v2` gets its words one by one, whatever is in them, and its exit code is left behind."""
    (folder / "key").unlink()
    met = folder / "met"
    _tool(folder, "detectnet_v2", f'printf "%s\\n" "$@" >{met}; exit 7')
    monkeypatch.setenv("PATH", f"{folder / 'bin'}:/usr/bin:/bin")
    request = {"words": ["detectnet_v2", "train", "-e", "a b;$X"], "module": "none", "arguments": [], "gpus": 4}
    (folder / "request.json").write_text(json.dumps(request))
    assert container_entry.main(folder) == 7
    assert met.read_text().splitlines() == ["train", "-e", "a b;$X"]
    assert json.loads((folder / "status.json").read_text()) == {"started": True, "code": 7}


def test_several_gpus_with_a_key(folder: Path, monkeypatch: pytest.MonkeyPatch, kept_signals: None) -> None:
    """mpirun starts this script once a GPU, as NVIDIA's command starts its own; the key is in no word of it."""
    met = folder / "met"
    _tool(folder, "mpirun", f'printf "%s\\n" "$@" >{met}; shift 12; exec "$@"')
    (folder / "entry.py").write_bytes(Path(container_entry.__file__).read_bytes())
    monkeypatch.setattr(container_entry, "__file__", str(folder / "entry.py"))
    monkeypatch.setenv("PATH", f"{folder / 'bin'}:/usr/bin:/bin")
    monkeypatch.setenv("PYTHONPATH", str(folder))
    seen = folder / "seen.json"
    (folder / "tao_fake_export.py").write_text(
        "import json, os, sys\nfrom pathlib import Path\n"
        f"Path({str(seen)!r}).write_text(json.dumps([sys.argv[1:], sorted(os.environ)]))\n"
    )
    request = {"words": [], "module": "tao_fake_export", "arguments": ["-e", "s"], "gpus": 2, "amp": True}
    (folder / "request.json").write_text(json.dumps(request))
    assert container_entry.main(folder) == 0
    words = met.read_text().splitlines()
    assert words[:4] == ["--oversubscribe", "--bind-to", "none", "--allow-run-as-root"]
    assert words[10:12] == ["-np", "2"]
    assert not any(SECRET in word for word in words)
    arguments, variables = json.loads(seen.read_text())
    assert arguments == ["-e", "s", f"--key={SECRET}"]
    assert container_entry.RANK_KEY not in variables
    assert not (folder / "key").exists()
