"""The walls that import-linter cannot see: what may be imported where inside a file."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import tao2serve

PACKAGE = Path(tao2serve.__file__).parent
STANDARD = frozenset(sys.stdlib_module_names)
# Importing these takes long, needs a GPU library, patches the process, or is an extra.
LATE = frozenset(
    {"clearml", "clearml_serving", "grpc", "onnxruntime", "tensorrt", "tritonclient", "plotly", "pytriton", "cv2"}
)
SERVER_ONLY = {
    "resize.py": frozenset({"cv2"}),  # if present
    "endpoint.py": frozenset({"starlette"}),
    "exporter.py": frozenset({"prometheus_client"}),
    "triton_client.py": frozenset({"tritonclient", "grpc"}),
    "triton_model.py": frozenset({"onnxruntime", "triton_python_backend_utils"}),
    "triton_preprocess.py": frozenset({"triton_python_backend_utils"}),
    "triton_postprocess.py": frozenset({"triton_python_backend_utils"}),
}


def imports(path: Path) -> Iterator[tuple[str, bool]]:
    """Yield (top-level package, whether the import runs when the file is imported); relative imports are left out."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    late = {
        id(inner)
        for outer in ast.walk(tree)
        if isinstance(outer, ast.FunctionDef | ast.AsyncFunctionDef)
        for inner in ast.walk(outer)
    }
    late |= {
        id(inner)
        for outer in ast.walk(tree)
        if isinstance(outer, ast.If) and "TYPE_CHECKING" in ast.dump(outer.test)
        for inner in ast.walk(outer)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for name in node.names:
                yield name.name.split(".")[0], id(node) not in late
        elif isinstance(node, ast.ImportFrom) and not node.level and node.module:
            yield node.module.split(".")[0], id(node) not in late


@pytest.mark.parametrize("path", sorted((PACKAGE / "runtime").glob("*.py")), ids=lambda path: path.name)
def test_runtime_needs_only_numpy_and_pillow(path: Path) -> None:
    """What ships to servers imports the standard library, numpy, Pillow and itself; servers' own parts in functions."""
    server_only = SERVER_ONLY.get(path.name, frozenset())
    for package, at_import in imports(path):
        allowed = package in STANDARD or package in ("numpy", "PIL") or (package in server_only and not at_import)
        assert allowed, f"{path.name} imports {package}"


@pytest.mark.parametrize(
    "path", sorted((PACKAGE / "sandbox" / "clearml_server").rglob("*.py")), ids=lambda path: path.stem
)
def test_clearml_server_knows_nothing_of_tao2serve(path: Path) -> None:
    """The sandbox's server imports itself only relatively, and no ClearML code: only the real SDK judges it."""
    assert not {package for package, _ in imports(path)} & {"tao2serve", "clearml", "clearml_serving"}


def test_slow_and_optional_packages_are_imported_late() -> None:
    """No module imports the ClearML SDK (3 s), inference libraries or extras when it is itself imported."""
    for path in sorted(PACKAGE.rglob("*.py")):
        early = {package for package, at_import in imports(path) if at_import} & LATE
        assert not early, f"{path.relative_to(PACKAGE)} imports {early} at its top"


def test_nothing_is_unpickled() -> None:
    """No code of ours can run what a file holds: no pickle, no eval, no allow_pickle."""
    for path in sorted(PACKAGE.rglob("*.py")):
        assert not {package for package, _ in imports(path)} & {"pickle", "dill", "joblib", "marshal", "shelve"}
        assert "allow_pickle=True" not in path.read_text(encoding="utf-8")


def test_the_tests_run_unpatched() -> None:
    """No test file imports locust, whose gevent patches the process: gRPC then hangs, and nothing is as it runs."""
    patched = sys.modules.get("gevent.monkey")
    assert patched is None or not patched.saved
