"""The preprocess code of one endpoint version: the runtime, its parameters and its settings, in one folder."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from tao2serve import runtime
from tao2serve.runtime.endpoint import PARAMS_FILE, SETTINGS_FILE, EndpointSettings

__all__ = ["write_package"]

SHIPPED: Final = "*.py"


def write_package(settings: EndpointSettings, params: Mapping[str, Any], *, directory: Path) -> Path:
    """Write the package into `directory` and return it; the runtime's files are copied verbatim."""
    directory.mkdir(parents=True)
    for source in sorted(Path(runtime.__file__).parent.glob(SHIPPED)):
        shutil.copyfile(source, directory / source.name)
    (directory / PARAMS_FILE).write_text(json.dumps(params, indent=2), encoding="utf-8")
    (directory / SETTINGS_FILE).write_text(json.dumps(asdict(settings), indent=2), encoding="utf-8")
    return directory
