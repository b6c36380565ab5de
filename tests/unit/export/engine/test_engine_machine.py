"""What a machine has, read through the seam for programs."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from tao2serve.export.engine.machine import Machine, read_machine, run_program, trtexec_version

# The forms NVIDIA documents, filled in by hand: no nvidia-smi and no trtexec ran where these tests were written.
QUERY = "NVIDIA H200, 9.0, 580.159.03\n"
TABLE = "| NVIDIA-SMI 580.159.03    Driver Version: 580.159.03    CUDA Version: 13.0     |\n"
BANNER = "&&&& RUNNING TensorRT.trtexec [TensorRT v{}]{} # trtexec --help\n=== Model Options ===\n"


class Programs:
    """Answers for programs, and what was asked of them."""

    def __init__(self, query: str = QUERY, table: str = TABLE, banner: str = "") -> None:
        self.answers = {"--query-gpu": query, "--help": banner, "": table}
        self.asked: list[list[str]] = []

    def __call__(self, command: Sequence[str]) -> str:
        self.asked.append(list(command))
        kinds = [kind for kind in self.answers if kind and any(part.startswith(kind) for part in command)]
        return self.answers[kinds[0] if kinds else ""]


@pytest.fixture(autouse=True)
def _no_tensorrt(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt", None)  # importing it fails, as where it is not installed


def test_a_gpu_machine() -> None:
    """GPU, compute capability, driver and CUDA come from nvidia-smi; of several GPUs from the first."""
    programs = Programs(query=QUERY + "Tesla T4, 7.5, 580.159.03\n")
    here = read_machine(environment={}, run=programs)
    assert (here.gpu_name, here.compute_capability) == ("NVIDIA H200", "9.0")
    assert (here.driver_version, here.cuda_version) == ("580.159.03", "13.0")
    assert programs.asked[0][:2] == ["nvidia-smi", "--id=0"]


def test_the_visible_gpu_is_the_one() -> None:
    """CUDA_VISIBLE_DEVICES decides, by index or UUID; without any, there is no GPU and nobody is asked."""
    programs = Programs()
    read_machine(environment={"CUDA_VISIBLE_DEVICES": "GPU-12ab,1"}, run=programs)
    assert programs.asked[0][1] == "--id=GPU-12ab"
    for hidden in ("", "-1"):
        assert read_machine(environment={"CUDA_VISIBLE_DEVICES": hidden}, run=programs).gpu_name == ""


@pytest.mark.parametrize("query", ["", "No devices were found\n", "a, b, c\n", "x, [N/A], y\n"])
def test_no_gpu(query: str) -> None:
    """No driver, no device, or an answer in no known form: no GPU, and no guess."""
    here = read_machine(environment={}, run=Programs(query=query))
    assert (here.gpu_name, here.compute_capability, here.cuda_version, here.tensorrt_version) == ("", "", "", "")
    assert here.trtexec is None
    assert "no GPU seen, no TensorRT" in str(here)


@pytest.mark.parametrize(
    ("number", "build", "version"),
    [("8601", "", "8.6.1"), ("8503", "", "8.5.3"), ("100001", " [b6]", "10.0.1.6"),
     ("101601", " [b11]", "10.16.1.11"), ("110400", " [b106]", "11.4.0.106")],
)  # fmt: skip
def test_the_version_of_trtexec(number: str, build: str, version: str) -> None:
    """The banner's number is taken apart by TensorRT 8's rule or by that of 10 and later."""
    assert trtexec_version(Path("trtexec"), run=Programs(banner=BANNER.format(number, build))) == version


def test_trtexec_is_looked_for(tmp_path: Path) -> None:
    """On PATH, or where the caller says; its version counts if the package is not there."""
    program = tmp_path / "trtexec"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    programs = Programs(banner=BANNER.format("101601", " [b11]"))
    here = read_machine(environment={"PATH": str(tmp_path)}, run=programs)
    assert (here.trtexec, here.tensorrt_version) == (program, "10.16.1.11")
    assert read_machine(trtexec=Path("/x/trtexec"), environment={}, run=programs).trtexec == Path("/x/trtexec")


def test_a_broken_package_is_told_from_a_missing_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A wheel without its libraries raises all sorts of things when imported; its words are kept."""
    monkeypatch.delitem(sys.modules, "tensorrt")
    (tmp_path / "tensorrt.py").write_text("raise OSError('libnvinfer.so.11: cannot open shared object file')\n")
    monkeypatch.syspath_prepend(tmp_path)
    here = read_machine(environment={}, run=Programs())
    assert here.tensorrt_version == ""
    assert "libnvinfer.so.11" in here.tensorrt_trouble


def test_programs_that_are_not_there_or_fail() -> None:
    """Looking never raises: a missing, failing or hanging program says nothing."""
    assert run_program(["/no/such/program"]) == ""
    assert run_program([sys.executable, "-c", "print('x'); raise SystemExit(9)"]) == ""
    assert run_program([sys.executable, "-c", "print('x')"]) == "x\n"
    assert Machine() == Machine(gpu_name="")
