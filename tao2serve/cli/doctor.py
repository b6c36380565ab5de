"""`tao2serve doctor`: what is here, what is missing, and the command that mends it."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

from tao2serve.cli.options import Json
from tao2serve.cli.output import print_json, print_text, quiet

if TYPE_CHECKING:
    from tao2serve.doctor.check import Check


def doctor(json_output: Json = False) -> int:
    """Say what is here, what is missing or wrong, and the command that mends it.

    Exits 4 if something that is here or configured does not work; what is merely missing is no failure.

    Example: tao2serve doctor
    """
    from tao2serve.doctor.doctor import anything_wrong
    from tao2serve.doctor.doctor import doctor as look
    from tao2serve.errors import ToolError

    with quiet(Path(os.devnull)):  # the state folder is looked at, not made, and what went wrong is in the checks
        checks = look()
    code = ToolError.exit_code if anything_wrong(checks) else 0
    if json_output:
        counts = Counter(check.status for check in checks)
        print_json(
            {
                "outcome": "wrong" if code else "ok",
                "counts": {status: counts[status] for status in ("ok", "missing", "wrong", "skipped")},
                "checks": [asdict(check) for check in checks],
            }
        )
    else:
        print_text(_table(checks))
    return code


def _table(checks: Sequence[Check]) -> str:
    lines: list[str] = []
    for group, members in groupby(checks, key=lambda check: check.group):
        lines.append(group)
        for check in members:
            lines.append(f"  {check.status:<8} {check.name}: {check.fact}")
            if check.evidence and check.status != "ok":
                lines.append(f"           seen: {check.evidence}")
            if check.remedy:
                lines.append(f"           try:  {check.remedy}")
    wrong = sum(check.status == "wrong" for check in checks)
    lines.append(f"{wrong} wrong" if wrong else "nothing is wrong")
    return "\n".join(lines)
