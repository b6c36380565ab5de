"""What may be asked of a builder, and what the versions of TensorRT are told."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from plan_files import SIGNATURE, exported

from tao2serve.errors import InputError, ToolError, UsageError
from tao2serve.export.engine.commands import export_command, shown, trtexec_command
from tao2serve.export.engine.dialect import dialect, same_version, version_numbers
from tao2serve.export.engine.request import EngineRequest, check_artifact
from tao2serve.export.lean import lean_signature
from tao2serve.values import ModelArtifact

ARTIFACT = ModelArtifact(
    format="onnx", path=Path("/m/my model.onnx"), sha256="a" * 64, precision="fp16", signature=SIGNATURE,
    source_sha256="b" * 64,
)  # fmt: skip


@pytest.mark.parametrize("batches", [(0, 1, 1), (2, 1, 4), (1, 5, 4), (1, 1, 1025), (-1, 1, 1)])
def test_batch_sizes_out_of_order_are_refused(batches: tuple[int, int, int]) -> None:
    """Only 1 <= min <= opt <= max <= 1024 is a profile; anything else is wrong usage."""
    least, usual, most = batches
    with pytest.raises(UsageError, match="batch sizes"):
        EngineRequest(artifact=ARTIFACT, min_batch=least, opt_batch=usual, max_batch=most)


@pytest.mark.parametrize("name", ["weights/model.hdf5", "model.ONNX", "model.plan", "experiment_spec.txt"])
def test_a_timing_cache_replaces_no_other_file(name: str) -> None:
    """TensorRT takes any file for a cache of another GPU, and the new cache would be written over it."""
    with pytest.raises(UsageError, match="another kind of file"):
        EngineRequest(artifact=ARTIFACT, timing_cache=Path(name))


def test_what_else_a_request_refuses() -> None:
    """A plan is not built from a plan, nor in no memory at all."""
    with pytest.raises(InputError, match="built from ONNX"):
        EngineRequest(artifact=replace(ARTIFACT, format="tensorrt_plan"))
    with pytest.raises(UsageError, match="1 MiB"):
        EngineRequest(artifact=ARTIFACT, workspace_bytes=1000)


def test_the_precision_must_be_in_the_file(tmp_path: Path) -> None:
    """An artifact that claims another precision than its file carries, or whose file changed, is not built."""
    artifact = exported(tmp_path)
    check_artifact(artifact)
    with pytest.raises(InputError, match="said to be fp16, and carries fp32"):
        check_artifact(replace(artifact, precision="fp16"))
    with pytest.raises(InputError, match="has changed"):
        check_artifact(replace(artifact, sha256="0" * 64))
    with pytest.raises(InputError, match="does not exist"):
        check_artifact(replace(artifact, path=tmp_path / "none.onnx"))


@pytest.mark.parametrize(
    ("version", "precision", "network", "builder", "options"),
    [
        ("8.6.1", "fp32", ("EXPLICIT_BATCH",), (), ()),
        ("8.6.1", "fp16", ("EXPLICIT_BATCH",), ("FP16",), ("--fp16",)),
        ("8.6.1.6", "int8", ("EXPLICIT_BATCH",), ("INT8",), ("--int8",)),
        ("10.16.1.11", "int8", ("STRONGLY_TYPED",), (), ("--stronglyTyped",)),
        ("11.4.0.106", "int8", (), (), ()),
        ("12.0", "fp16", (), (), ()),
    ],
)
def test_each_version_is_told_the_precision_in_its_own_way(
    version: str, precision: str, network: Any, builder: Any, options: Any
) -> None:
    """8.6 by flags, 10 by a strongly typed network, 11 not at all: it has neither flags nor another kind."""
    rules = dialect(version, precision)
    assert (rules.network_flags, rules.builder_flags, rules.trtexec_options) == (network, builder, options)
    assert rules.strongly_typed == (not version.startswith("8"))


@pytest.mark.parametrize("version", ["8.5.3", "7.2", "9.3.0", "", "dev"])
def test_other_versions_are_a_missing_tool(version: str) -> None:
    """A TensorRT whose rules we do not know is not tried."""
    with pytest.raises(ToolError, match="not supported"):
        dialect(version, "fp32")


def test_versions_are_compared_as_far_as_both_go() -> None:
    """The package says 8.6.1 where the plan says 8.6.1.6; three numbers are the least that says anything."""
    assert same_version("8.6.1", "8.6.1.6")
    assert same_version("10.13.3.9.post1", "10.13.3.9")
    assert not same_version("10.13.3.9", "10.13.3.10")
    assert not same_version("10", "10.13.3")
    assert not same_version("", "")
    assert version_numbers("10.13.3.9.post1") == (10, 13, 3, 9)


@pytest.mark.parametrize(
    ("version", "own"), [("8.6.1", ["--fp16"]), ("10.16.1.11", ["--stronglyTyped"]), ("11.4.0.106", [])]
)
def test_the_command_line_of_trtexec(version: str, own: list[str]) -> None:
    """Every option, by version; the name with a colon stands in quotes that reach trtexec."""
    request = EngineRequest(
        artifact=ARTIFACT, min_batch=1, opt_batch=4, max_batch=16, workspace_bytes=3 << 30,
        timing_cache=Path("/c/t.cache"), ampere_plus=True,
    )  # fmt: skip
    command = trtexec_command("trtexec", request, version=version, plan=Path("/o/p.plan"))
    assert list(command) == [
        "trtexec",
        "--onnx=/m/my model.onnx",
        "--saveEngine=/o/p.plan",
        "--minShapes='input_1:0':1x3x32x48",
        "--optShapes='input_1:0':4x3x32x48",
        "--maxShapes='input_1:0':16x3x32x48",
        "--memPoolSize=workspace:3072",
        "--noTF32",
        "--skipInference",
        *own,
        "--timingCacheFile=/c/t.cache",
        "--hardwareCompatibilityLevel=ampere+",
    ]
    import shlex

    assert shlex.split(shown(command)) == list(command)


@pytest.mark.parametrize("name", ["it's", "a,b"])
def test_a_name_trtexec_cannot_be_told(name: str) -> None:
    """Quotes and commas are trtexec's own punctuation."""
    signature = replace(SIGNATURE, input=replace(SIGNATURE.input, name=name))
    request = EngineRequest(artifact=replace(ARTIFACT, signature=signature))
    with pytest.raises(InputError, match="cannot take"):
        trtexec_command("trtexec", request, version="11.0", plan=Path("p"))


def test_our_own_command_can_be_pasted() -> None:
    """A path with a space is quoted."""
    assert export_command("/m/my model.onnx", (1, 4, 8)) == (
        "tao2serve export '/m/my model.onnx' --engine --min-batch 1 --opt-batch 4 --max-batch 8"
    )


def test_trtexec_is_told_pixels_in_their_own_layout() -> None:
    """A lean artifact's shapes are (N, H, W, 3) under its name; its type trtexec reads from the ONNX file."""
    signature = lean_signature(SIGNATURE, uint8_input=True)
    request = EngineRequest(artifact=replace(ARTIFACT, signature=signature), min_batch=1, opt_batch=4, max_batch=8)
    assert request.shapes == ((1, 32, 48, 3), (4, 32, 48, 3), (8, 32, 48, 3))
    command = trtexec_command("trtexec", request, version="10.16.1", plan=Path("p"))
    assert "--optShapes='pixels':4x32x48x3" in command
    assert export_command("m.hdf5", (1, 4, 8), ("--uint8-input",)) == (
        "tao2serve export m.hdf5 --uint8-input --engine --min-batch 1 --opt-batch 4 --max-batch 8"
    )
