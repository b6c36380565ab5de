"""A tuning whose candidates are really served, and whose numbers are made up: two instances are twice as fast as one.

Run as a program: FOLDER COMMANDS, the last a JSON list of command lines that follow in the same process, since
the start of one takes seconds. Prints a line of JSON for each time that a candidate would be measured, one for the
outcome, and of each command its document and its exit code.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
from loadtest_samples import record, result

from tao2serve.cli.main import run as run_command
from tao2serve.config import Settings, load_settings
from tao2serve.loadtest import ClosedLoop, LoadPlan, LoadResult, Target
from tao2serve.sandbox.samples import pictures
from tao2serve.serving.client import ask
from tao2serve.steps import Steps
from tao2serve.triton.config import CONFIG_FILE, parse_config
from tao2serve.tuning.candidate import parse_values
from tao2serve.tuning.run import Limits, TuneRequest, run_tuning

VALUES = ("placement=ensemble", "instances=2", "max_batch_size=4", "queue_delay_us=250")


def made_up(settings: Settings) -> Callable[[LoadPlan, Callable[[str], None]], LoadResult]:
    """Ask the trial once, and say that it was a load test; a real one is in the journal before."""
    made = result([record(start_s=index / 10, latency_ms=20.0) for index in range(50)])

    def run(plan: LoadPlan, _news: Callable[[str], None]) -> LoadResult:
        answer = ask(plan.url, pictures()[0].read_bytes(), media_type="image/jpeg")
        assert settings.model_repository is not None
        folders = [settings.model_repository / (plan.triton_model + part) for part in ("_detector", "")]
        folder = next(folder for folder in folders if folder.is_dir())
        config = parse_config((folder / CONFIG_FILE).read_text(encoding="utf-8"), source=folder)
        count = config.instance_group[0].count
        placement = "ensemble" if folder == folders[0] else "endpoint"
        served = {"placement": placement, "instances": count, "max_batch_size": config.max_batch_size}
        print(json.dumps({"version": answer.version, "boxes": len(answer.detections), "served": served}))
        return replace(made, plan=plan, throughput_rps=1000.0 * count)

    return run


if __name__ == "__main__":
    plan = LoadPlan(
        targets=(Target(url="http://127.0.0.1/unused"),), images=pictures()[0].parent, shape=ClosedLoop(users=1),
        run_time_s=1.0, warmup_s=0.1, endpoint="street",
    )  # fmt: skip
    request = TuneRequest(
        endpoint="street", plan=plan, limits=Limits(), values=parse_values(VALUES), blocks=2,
        directory=Path(sys.argv[1]),
    )  # fmt: skip
    settings = load_settings()
    print(json.dumps(run_tuning(request, settings, steps=Steps(), run=made_up(settings)).to_dict()), flush=True)
    for arguments in json.loads(sys.argv[2]):
        print(json.dumps({"code": run_command(arguments)}), flush=True)
