"""The net below the patch: a text that differs in anything but its tracking never reaches a file."""

from __future__ import annotations

from pathlib import Path

import pytest

from tao2serve.errors import Tao2ServeError
from tao2serve.sandbox.samples import SAMPLE
from tao2serve.tao.spec_patch import TrackingPatch, _require_nothing_else, patch_spec

SPEC = SAMPLE / "unpruned" / "experiment_spec.txt"


@pytest.mark.parametrize(
    ("before", "after"),
    [("num_epochs: 16", "num_epochs: 17"), ("random_seed: 42\n", ""), ("enabled: true", "enabled: false")],
)
def test_a_change_of_anything_else_is_a_defect(before: str, after: str) -> None:
    """Also of the visualizer's own fields, unless debug images were asked for."""
    patched = patch_spec(SPEC, TrackingPatch(project="street", task="unpruned"))
    _require_nothing_else(SPEC, patched.before, patched.after, with_images=False)
    assert before in patched.after
    with pytest.raises(Tao2ServeError, match="more than its tracking"):
        _require_nothing_else(
            Path("spec.txt"), patched.before, patched.after.replace(before, after, 1), with_images=False
        )
