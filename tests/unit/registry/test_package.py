"""The package in which an artifact travels: what it holds, and that the same content is the same package."""

from __future__ import annotations

import json
import os
import zipfile
from pathlib import Path

import pytest

from tao2serve.registry.package import CODE, pack
from tao2serve.values import ModelArtifact, ModelSignature, Tensor

SIGNATURE = ModelSignature(
    input=Tensor(name="input_1", datatype="FP32", shape=(3, 32, 64)),
    coverage=Tensor(name="cov", datatype="FP32", shape=(1, 2, 4)),
    bbox=Tensor(name="bbox", datatype="FP32", shape=(4, 2, 4)),
)


def artifact(
    folder: Path, content: bytes = b"model", *, format_name: str = "onnx", name: str = "a.onnx"
) -> ModelArtifact:
    folder.mkdir(exist_ok=True)
    path = folder / name
    path.write_bytes(content)
    (folder / "weights").mkdir(exist_ok=True)
    companion = folder / "weights" / "a.bin"
    companion.write_bytes(b"external")
    return ModelArtifact(
        format=format_name, path=path, sha256="s", precision="fp32", signature=SIGNATURE, source_sha256="w",
        companions=(companion,) if format_name == "onnx" else (),
    )  # fmt: skip


def test_it_holds_what_the_stock_controller_needs(tmp_path: Path) -> None:
    """model.onnx with the python backend's model.py, companions by their relative names, params.json, the original."""
    original = artifact(tmp_path / "original", b"TAO's own")
    package = pack(artifact(tmp_path / "made"), params={"family": "x"}, original=original, target=tmp_path / "p.zip")
    with zipfile.ZipFile(package.path) as archive:
        held = {name: archive.read(name) for name in archive.namelist()}
    assert held == {
        "model.onnx": b"model", "model.py": CODE.read_bytes(), "original.onnx": b"TAO's own",
        "params.json": held["params.json"], "weights/a.bin": b"external",
    }  # fmt: skip
    assert json.loads(held["params.json"]) == {"family": "x"}
    assert package.bytes == package.path.stat().st_size


def test_a_plan_travels_without_code(tmp_path: Path) -> None:
    """Triton runs a plan itself."""
    plan = artifact(tmp_path / "made", format_name="tensorrt_plan", name="a.plan")
    package = pack(plan, params={}, target=tmp_path / "p.zip")
    with zipfile.ZipFile(package.path) as archive:
        assert sorted(archive.namelist()) == ["model.plan", "params.json"]


def test_the_same_content_is_the_same_package(tmp_path: Path) -> None:
    """Neither times, names of the user's files nor modes change a byte; any content does. Nothing is moved."""
    first = artifact(tmp_path / "one")
    second = artifact(tmp_path / "two", name="other.onnx")
    os.utime(second.path, (0, 0))
    second.path.chmod(0o600)
    packages = [pack(made, params={"a": 1}, target=tmp_path / f"{made.path.stem}.zip") for made in (first, second)]
    assert packages[0].sha256 == packages[1].sha256
    assert packages[0].path.read_bytes() == packages[1].path.read_bytes()
    assert first.path.read_bytes() == b"model"
    third = artifact(tmp_path / "three", b"another model")
    others = [
        pack(third, params={"a": 1}, target=tmp_path / "3.zip"),
        pack(first, params={"a": 2}, target=tmp_path / "4.zip"),
    ]
    assert len({packages[0].sha256, *(other.sha256 for other in others)}) == 3


@pytest.mark.parametrize("swapped", [("a.onnx", b"xy", b"z"), ("a.onnx", b"x", b"yz")])
def test_bytes_do_not_wander_between_files(tmp_path: Path, swapped: tuple[str, bytes, bytes]) -> None:
    """The digest knows where one file ends and the next begins."""
    _, content, beside = swapped
    made = artifact(tmp_path / "made", content)
    made.companions[0].write_bytes(beside)
    package = pack(made, params={}, target=tmp_path / "p.zip")
    made.path.write_bytes(content + beside)
    made.companions[0].write_bytes(b"")
    assert pack(made, params={}, target=tmp_path / "q.zip").sha256 != package.sha256
