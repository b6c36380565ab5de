"""The record beside a plan, the plan's header, and whether both fit a machine."""

from __future__ import annotations

import json
import os
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from plan_files import HERE, SIGNATURE, VERSION, plan_bytes, record

from tao2serve.errors import InputError, ToolError
from tao2serve.export.engine.fit import require_fit
from tao2serve.export.engine.machine import Machine
from tao2serve.export.engine.plan import Plan, is_plan, plan_artifact, read_plan
from tao2serve.export.engine.record import caution, misfit, read_record, record_path
from tao2serve.tao.source import sha256_of


def _written(folder: Path, content: bytes = plan_bytes(), **changes: Any) -> Path:
    path = folder / "model.plan"
    path.write_bytes(content)
    record_path(path).write_bytes(record(**{"plan_sha256": sha256_of(path), **changes}).to_json())
    return path


def test_a_record_is_read_as_it_was_written(tmp_path: Path) -> None:
    """Every member survives, and the same record gives the same bytes."""
    path = record_path(_written(tmp_path))
    assert path.name == "model.plan.json"
    found = read_record(path)
    assert found == record(plan_sha256=found.plan_sha256)
    assert found.to_json() == path.read_bytes()


def test_unknown_members_are_ignored(tmp_path: Path) -> None:
    """A record of a later version of ours can be read."""
    path = tmp_path / "r.json"
    path.write_text(json.dumps({**json.loads(record().to_json()), "colour": ["red"]}))
    assert read_record(path) == record()


@pytest.mark.parametrize("name", sorted(json.loads(record().to_json())))
def test_members_of_another_type_are_refused(tmp_path: Path, name: str) -> None:
    """Each member is there and of its type; the error names it."""
    path = tmp_path / "r.json"
    document = json.loads(record().to_json())
    for broken in ({**document, name: None}, {key: value for key, value in document.items() if key != name}):
        path.write_text(json.dumps(broken))
        with pytest.raises(InputError, match=f"not the record of an engine: {name} is not"):
            read_record(path)


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b"\xff\xfe", b"[" * 100_000, b'{"tensorrt_version": ' + b"9" * 5000 + b"}", b" " * (1 << 21)],
)
def test_other_files_are_no_records(tmp_path: Path, content: bytes) -> None:
    """Garbage, deep nesting, huge numbers and huge files are InputErrors."""
    path = tmp_path / "r.json"
    path.write_bytes(content)
    with pytest.raises(InputError):
        read_record(path)
    with pytest.raises(InputError, match="cannot be read"):
        read_record(tmp_path / "none.json")


@settings(max_examples=200, deadline=None)
@given(content=st.binary(max_size=64), at=st.integers(0, 1200), header=st.binary(max_size=64))
def test_any_bytes_are_read_or_refused(content: bytes, at: int, header: bytes) -> None:
    """Damage anywhere in a plan or its record ends in an InputError, or changes nothing that matters."""
    with tempfile.TemporaryDirectory() as folder:
        path = _written(Path(folder), plan_bytes()[: len(header)] + header)
        whole = record_path(path).read_bytes()
        record_path(path).write_bytes(whole[:at] + content + whole[at + len(content) :])
        try:
            assert read_plan(path).sha256 == sha256_of(path)
        except InputError as error:
            assert error.subject.startswith(str(path))  # noqa: PT017 - both ends are right


@pytest.mark.parametrize("shape", [[3, 32], [3, 32, 0], [3, 32, 1.5], [3, 32, True], "3x32x48"])
def test_a_signature_needs_its_shapes(tmp_path: Path, shape: object) -> None:
    """A tensor of a record has three sizes."""
    document = json.loads(record().to_json())
    document["signature"]["input"]["shape"] = shape
    path = tmp_path / "r.json"
    path.write_text(json.dumps(document))
    with pytest.raises(InputError):
        read_record(path)


def test_a_plan_is_read_with_its_record(tmp_path: Path) -> None:
    """Header, digest and record come together, and give back the artifact that was built."""
    path = _written(tmp_path)
    plan = read_plan(path)
    assert (plan.header_version, plan.size_bytes) == (VERSION, path.stat().st_size)
    artifact = plan_artifact(plan)
    assert (artifact.format, artifact.precision, artifact.signature) == ("tensorrt_plan", "fp16", SIGNATURE)
    assert (artifact.sha256, artifact.source_sha256) == (sha256_of(path), "b" * 64)


def test_a_plan_without_a_record(tmp_path: Path) -> None:
    """It can be read, and is no artifact: what is in it is not known."""
    path = tmp_path / "model.plan"
    path.write_bytes(plan_bytes("8.6.1.6"))
    plan = read_plan(path)
    assert (plan.header_version, plan.record) == ("8.6.1.6", None)
    with pytest.raises(InputError, match="no record"):
        plan_artifact(plan)


@pytest.mark.parametrize("content", [plan_bytes(serialization=1), plan_bytes("8.5.3.1"), plan_bytes("0.0.0.0")])
def test_a_header_of_unknown_form_names_no_version(tmp_path: Path, content: bytes) -> None:
    """Where the version's place is not documented, none is made up."""
    path = tmp_path / "model.plan"
    path.write_bytes(content)
    assert read_plan(path).header_version == ""


@pytest.mark.parametrize(
    ("content", "words"),
    [(b"", "not a TensorRT plan"), (b"ftr", "not a TensorRT plan"), (b"ftrt" + b"\0" * 23, "truncated"),
     (b"\x08\x07\x12", "not a TensorRT plan"), (b"PK\x03\x04" * 20, "not a TensorRT plan")],
)  # fmt: skip
def test_foreign_and_truncated_files(tmp_path: Path, content: bytes, words: str) -> None:
    """What is no plan, or ends within the header, is an InputError."""
    path = tmp_path / "model.plan"
    path.write_bytes(content)
    with pytest.raises(InputError, match=words):
        read_plan(path)
    assert is_plan(path) == (words == "truncated")


def test_things_that_are_no_files(tmp_path: Path) -> None:
    """A missing file, a folder and a pipe are refused at once."""
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "none", tmp_path, tmp_path / "pipe"):
        assert not is_plan(path)
        with pytest.raises(InputError):
            read_plan(path)


def test_a_record_of_another_plan(tmp_path: Path) -> None:
    """A plan that changed since it was built, by damage or exchange, is refused."""
    path = _written(tmp_path)
    path.write_bytes(plan_bytes(body=b"\1" * 100))
    with pytest.raises(InputError, match=r"is not the plan that model\.plan\.json describes"):
        read_plan(path)


@pytest.mark.parametrize(
    ("here", "changes", "words"),
    [
        (HERE, {}, None),
        (HERE, {"tensorrt_version": "10.16.1"}, None),
        (replace(HERE, tensorrt_version="10.16.2.1"), {}, "built by TensorRT 10.16.1.11, and TensorRT 10.16.2.1"),
        (replace(HERE, tensorrt_version="11.4.0"), {}, "11.4.0 is here"),
        (replace(HERE, compute_capability="8.9", gpu_name="NVIDIA L4"), {}, r"9.0 \(NVIDIA H200\), and this GPU has"),
        (replace(HERE, compute_capability="8.9"), {"ampere_plus": True}, None),
        (replace(HERE, compute_capability="7.5"), {"ampere_plus": True}, "compute capability 9.0"),
        (replace(HERE, platform="linux-aarch64"), {}, "built on linux-x86_64, and this is linux-aarch64"),
        (replace(HERE, gpu_name="NVIDIA H100"), {}, None),
        (Machine(), {}, None),
        (HERE, {"compute_capability": "", "gpu_name": "", "platform": ""}, None),
    ],
)
def test_whether_a_plan_fits(here: Machine, changes: dict[str, Any], words: str | None) -> None:
    """Another TensorRT, compute capability or platform is a misfit, told in words; what is not known is not."""
    reason = misfit(record(**changes), here)
    if words is None:
        assert reason is None
    else:
        import re

        assert reason is not None
        assert re.search(words, reason)


def _plan(**changes: Any) -> Plan:
    return Plan(path=Path("m.plan"), sha256="c" * 64, size_bytes=1, header_version=VERSION, record=record(**changes))


def test_a_misfit_shows_both_sides_and_the_way_out() -> None:
    """The error has the plan's machine, this machine, and the command that builds the plan again."""
    with pytest.raises(InputError, match="does not fit") as caught:
        require_fit(_plan(), replace(HERE, tensorrt_version="11.4.0.106"))
    for words in ("plan: NVIDIA H200", "TensorRT 10.16.1.11", "here: NVIDIA H200", "TensorRT 11.4.0.106"):
        assert words in caught.value.evidence
    assert "tao2serve export model.onnx --engine --min-batch 1 --opt-batch 4 --max-batch 8" in caught.value.hint


def test_a_plan_without_a_record_is_judged_by_its_header() -> None:
    """The header's version is held against what is here, and said to be the header's."""
    plan = replace(_plan(), record=None)
    with pytest.raises(InputError) as caught:
        require_fit(plan, replace(HERE, tensorrt_version="8.6.1"))
    assert "its header names TensorRT 10.16.1.11" in caught.value.evidence
    assert any("no record" in doubt for doubt in require_fit(plan, HERE))


def test_what_is_not_known_is_doubtful_and_not_wrong() -> None:
    """A plan that fits all that is known passes, with what was not judged in words."""
    assert require_fit(_plan(), HERE) == ()
    assert "which GPU is there" in require_fit(_plan(), Machine(tensorrt_version=VERSION))[0]
    assert "which TensorRT" in require_fit(_plan(), replace(HERE, tensorrt_version=""))[0]
    assert "may be slower" in require_fit(_plan(), replace(HERE, gpu_name="NVIDIA H100"))[0]
    assert caution(record(gpu_name=""), HERE) is not None


def test_nothing_to_judge_by_is_a_missing_tool() -> None:
    """Without GPU and TensorRT nobody can say; the reason why TensorRT does not load is kept."""
    with pytest.raises(ToolError, match="cannot be judged") as caught:
        require_fit(_plan(), Machine(platform="linux-x86_64", tensorrt_trouble="libnvinfer.so.11 is missing"))
    assert caught.value.evidence == "libnvinfer.so.11 is missing"
