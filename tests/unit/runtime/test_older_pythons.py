"""Code that runs in the Python of somebody else's Triton."""

from __future__ import annotations

import ast
from pathlib import Path

from tao2serve.runtime import triton_model


def test_the_detectors_model_is_python_3_8() -> None:
    """ClearML Serving's stock Triton image has Python 3.8: its grammar, and no `zip(strict=)`, which came with 3.10."""
    tree = ast.parse(Path(triton_model.__file__).read_text(encoding="utf-8"), feature_version=(3, 8))
    options = {keyword.arg for node in ast.walk(tree) if isinstance(node, ast.Call) for keyword in node.keywords}
    assert "strict" not in options
    # Annotations such as `list[Any]` stay text.
    assert any(isinstance(node, ast.ImportFrom) and node.module == "__future__" for node in tree.body)
