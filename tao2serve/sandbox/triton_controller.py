"""ClearML Serving's own Triton controller, in place of a Triton of ours, run as a module.

The `main()` of clearml-serving 1.3.5 fills `/models` and no other folder, takes the serving service's name from
whichever it finds first, and hands Triton an option of its own unless told not to. This does the same with the real
`TritonHelper`, for one sandbox. In one thing it does better: the stock one copies a model file by file into the folder
that Triton looks into, and Triton 2.51 loads nothing any more once it has found one of the python backend without
its `model.py`.
"""

from __future__ import annotations

import argparse
import shutil
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final, NoReturn

import psutil

from tao2serve.triton.config import CONFIG_FILE

__all__ = ["NAME", "main", "put_whole"]

NAME: Final = "triton engine"  # how the stock controller names itself, after its serving service
SERVER: Final = "tritonserver"
GRACE_S: Final = 10.0


def main() -> None:
    """Run the controller until Triton ends or SIGTERM comes; its Triton ends with it, which the stock one leaves."""
    from clearml import Task  # before the arguments are read, so that they are written into the task
    from clearml_serving.engines.triton.triton_helper import TritonHelper
    from clearml_serving.serving.model_request_processor import ModelRequestProcessor

    arguments = _read_arguments()
    service: Any = ModelRequestProcessor._get_control_plane_task(task_id=arguments.serving_id)
    task = Task.init(
        project_name=service.get_project_name() or "serving",
        task_name=f"{service.name} - {NAME}",
        task_type=Task.TaskTypes.inference,
        reuse_last_task_id=False,
        auto_connect_frameworks=False,
        auto_resource_monitoring=False,
    )
    # No arguments: those of `t_` names would go to Triton with the underscores that it does not know.
    helper = TritonHelper(
        SimpleNamespace(),
        task,
        serving_id=arguments.serving_id,
        metric_host="127.0.0.1",
        metric_port=arguments.metrics_port,
    )
    staging = Path(arguments.repository).with_name("staging")
    helper.model_service_update_step = put_whole(helper.model_service_update_step, staging)
    with _ended_with_its_triton():
        helper.maintenance_daemon(
            local_model_repo=arguments.repository,
            update_frequency_sec=arguments.update_frequency * 60,
            metric_frequency_sec=arguments.metric_frequency * 60,
        )


def put_whole(step: Callable[..., bool], staging: Path) -> Callable[..., bool]:
    """Return the controller's update step, which now writes into `staging`, and renames what is whole into place."""

    def update(model_repository_folder: str, verbose: bool = True) -> bool:
        staging.mkdir(exist_ok=True)
        changed = step(model_repository_folder=str(staging), verbose=verbose)
        for folder in staging.iterdir():
            if not (folder / CONFIG_FILE).is_file():  # the download failed
                continue
            target = Path(model_repository_folder) / folder.name
            if target.exists():
                shutil.rmtree(target)
            folder.rename(target)
        return changed

    return update


def _read_arguments() -> argparse.Namespace:
    """The names of the stock controller's own options; frequencies in minutes, as there."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--serving-id", required=True)
    parser.add_argument("--update-frequency", type=float, required=True)
    parser.add_argument("--metric-frequency", type=float, required=True)
    parser.add_argument("--metrics-port", type=int, required=True)
    parser.add_argument("--repository", required=True)
    return parser.parse_args()


@contextmanager
def _ended_with_its_triton() -> Iterator[None]:
    def leave(_number: int, _frame: object) -> NoReturn:
        raise SystemExit(0)

    signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        servers = [child for child in psutil.Process().children() if child.name() == SERVER]
        for server in servers:
            server.terminate()
        _, stubborn = psutil.wait_procs(servers, timeout=GRACE_S)
        for server in stubborn:
            server.kill()


if __name__ == "__main__":
    main()
