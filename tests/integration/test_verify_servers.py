"""verify and the precisions as a user runs them: files against Triton and endpoints of the sandbox."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from command_line import CommandLine

from tao2serve.sandbox.samples import SAMPLE
from tao2serve.triton.control import TritonControl

pytestmark = pytest.mark.integration
WEIGHTS = SAMPLE / "pruned" / "weights" / "resnet10_street_pruned.hdf5"
OTHER = SAMPLE / "unpruned" / "weights" / "resnet10_street.hdf5"
IMAGES, LABELS = SAMPLE / "images", SAMPLE / "labels"


@pytest.fixture(scope="module")
def in_int8(sandbox: CommandLine) -> dict[str, Any]:
    """The pruned sample as int8 endpoint `small`: the JSON document of `deploy`."""
    outcome = sandbox.tao2serve(
        "deploy", WEIGHTS, "--endpoint", "small", "--precision", "int8", "--calibration-images", IMAGES,
        "--image", IMAGES / "street_01.jpg", "--json",
    )  # fmt: skip
    return outcome.assert_success().document


def triton_model(sandbox: CommandLine, deployment: dict[str, Any]) -> str:
    """The address of the Triton model behind a deployment."""
    endpoint = deployment["endpoint"]
    return f"grpc://{sandbox.environment['TAO2SERVE_TRITON_GRPC']}/{endpoint['name']}_{endpoint['version']}"


def test_an_endpoint_equals_its_weights(sandbox: CommandLine, deployed: dict[str, Any]) -> None:
    """Every box of every sample picture comes back through HTTP, ClearML Serving and Triton; mAP is the same."""
    document = (
        sandbox.tao2serve("verify", WEIGHTS, "street", "--images", IMAGES, "--labels", LABELS, "--json")
        .assert_success()
        .document
    )
    assert (document["outcome"], document["candidate"]["kind"]) == ("ok", "endpoint")
    assert document["boxes"]["matched_ratio"] == 1.0
    assert document["boxes"]["expected"] > 80
    assert abs(document["accuracy"]["drop"]) < 1e-6
    turned = sandbox.tao2serve("verify", deployed["endpoint"]["url"], WEIGHTS, "--images", IMAGES, "--limit", "2")
    assert "99% of the boxes must match" in turned.assert_success().stdout


def test_a_triton_model_shows_its_tensors(sandbox: CommandLine, deployed: dict[str, Any]) -> None:
    """The network on Triton is compared tensor by tensor, and its precision is known."""
    address = triton_model(sandbox, deployed)
    document = sandbox.tao2serve("verify", WEIGHTS, address, "--json").assert_success().document
    assert document["candidate"] == {"name": address, "kind": "triton_model", "precision": "fp32"}
    assert max(tensor["max_abs"] for tensor in document["tensors"]) < 1e-4


@pytest.mark.usefixtures("deployed")
def test_another_model_is_told_from_its_endpoint(sandbox: CommandLine, tmp_path: Path) -> None:
    """Exit 7 with the normal document; Triton, asked behind the endpoint, shows that the network differs."""
    outcome = sandbox.tao2serve("verify", OTHER, "street", "--images", IMAGES, "-o", tmp_path / "drawn", "--json")
    assert outcome.code == 7
    document = outcome.document
    assert (document["outcome"], document["passed"]) == ("failed", False)
    assert document["first_divergence"].startswith("network")
    assert document["failures"]
    assert all(Path(drawing).is_file() for drawing in document["drawings"])
    assert document["drawings"]


def test_an_int8_deployment_says_what_it_costs(sandbox: CommandLine, in_int8: dict[str, Any]) -> None:
    """The deployed artifact is int8, its cost is in the document, and its endpoint passes as int8."""
    assert in_int8["artifact"]["precision"] == "int8"
    assert in_int8["artifact"]["cost"]["boxes"]["matched_ratio"] >= 0.9
    document = (
        sandbox.tao2serve(
            "verify", WEIGHTS, triton_model(sandbox, in_int8), "--images", IMAGES, "--labels", LABELS, "--json"
        )
        .assert_success()
        .document
    )
    assert (document["precision"], document["candidate"]["precision"]) == ("int8", "int8")
    assert document["tensors"][0]["max_abs"] > 1e-3
    assert document["accuracy"]["drop"] <= 0.01


def test_servers_that_are_not_there(sandbox: CommandLine) -> None:
    """A Triton model or endpoint that does not exist is a service's refusal or bad input, named."""
    nowhere = sandbox.tao2serve("verify", WEIGHTS, "grpc://127.0.0.1:9/street_1", "--json")
    assert nowhere.code == 5
    assert nowhere.document["error"]["subject"] == "grpc://127.0.0.1:9/street_1"
    unknown = sandbox.tao2serve("verify", WEIGHTS, "nothing", "--json")
    assert unknown.code == 3
    assert "not registered" in unknown.document["error"]["fact"]
    assert "Traceback" not in nowhere.stderr + unknown.stderr


def test_a_lean_graph_on_triton_gives_the_same_bits(sandbox: CommandLine, tmp_path: Path) -> None:
    """Pixels go to the real Triton as bytes, boxes come back; compared with both graphs here nothing differs."""
    exported = sandbox.tao2serve(
        "export", WEIGHTS, "-o", tmp_path / "onnx", "--uint8-input", "--absolute-boxes", "--json"
    )
    lean, plain = (artifact["path"] for artifact in exported.assert_success().document["artifacts"])
    sandbox.tao2serve("build", lean, "--name", "lean").assert_success()
    host = sandbox.environment["TAO2SERVE_TRITON_GRPC"]
    with TritonControl(host) as control:
        control.load("lean")
    address = f"grpc://{host}/lean"
    for reference in (lean, plain):
        document = (
            sandbox.tao2serve("verify", reference, address, "--images", IMAGES, "--json").assert_success().document
        )
        assert [tensor["name"] for tensor in document["tensors"]] == ["output_cov/Sigmoid:0", "output_boxes"]
        assert [tensor["max_abs"] for tensor in document["tensors"]] == [0.0, 0.0]
        assert document["boxes"]["matched_ratio"] == 1.0
        assert document["boxes"]["expected"] > 80
    alone = Path(shutil.copy(plain, tmp_path / "without_spec.onnx"))
    document = sandbox.tao2serve("verify", alone, address, "--json").assert_success().document
    assert document["decoded_with"].endswith(f"with the bbox scale and offset of {address}")


def test_precisions_by_command_line(bare: CommandLine, tmp_path: Path) -> None:
    """export writes fp16 and int8 files that inspect and verify recognise; what they cost is in the document."""
    for precision, options in (("fp16", ()), ("int8", ("--calibration-images", IMAGES))):
        document = bare.tao2serve(
            "export", WEIGHTS, "-o", tmp_path / precision, "--precision", precision, *options, "--images", IMAGES,
            "--labels", LABELS, "--json",
        ).assert_success().document  # fmt: skip
        (artifact,) = document["artifacts"]
        assert (artifact["format"], artifact["precision"]) == ("onnx", precision)
        assert document["cost"]["accuracy"]["drop"] <= 0.01
        seen = bare.tao2serve("inspect", artifact["path"], "--json").assert_success().document
        assert (seen["precision"], seen["template"], seen["num_layers"]) == (precision, "resnet", 10)
        verified = bare.tao2serve("verify", WEIGHTS, artifact["path"], "--images", IMAGES, "--json").assert_success()
        assert verified.document["precision"] == precision
        assert json.loads(verified.stdout)["boxes"]["expected"] > 80
