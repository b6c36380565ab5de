"""The agent's side of a run, `python -m tao2serve.remote.job`: inputs in, the command, outputs and result back."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from tao2serve.errors import Tao2ServeError
from tao2serve.registry.calls import call
from tao2serve.registry.download import download
from tao2serve.registry.session import clearml
from tao2serve.remote.bootstrap import CONFIGURATION
from tao2serve.remote.bundle import STORE, unpack, write_zip
from tao2serve.remote.protocol import LINE, RESULT, TASK_VARIABLE, TELL_VARIABLE, output_key
from tao2serve.remote.report import report
from tao2serve.remote.request import WORK
from tao2serve.tao.source import sha256_of

__all__ = ["Job", "main"]

log = logging.getLogger(__name__)

ABORT_LIMIT_S: Final = 300.0  # what a deployment may need to take back what it began
REPORT_EVERY_S: Final = 1.0
FAILED: Final = 1
# Of the agent's own task: a command that found them would take itself for that task.
HIDDEN: Final = ("CLEARML_TASK_ID", "TRAINS_TASK_ID", "CLEARML_PROC_MASTER_ID", "TRAINS_PROC_MASTER_ID",
                 "CLEARML_LOG_TASK_TO_BACKEND", "TRAINS_LOG_TASK_TO_BACKEND", "CLEARML_LOG_LEVEL", "TRAINS_LOG_LEVEL",
                 "PYTHONPATH")  # fmt: skip
# Where things are is the machine's to say, if it says anything; all else is as the user has it.
PLACES: Final = ("model_repository", "triton_grpc", "serving_base_url")


def main() -> None:
    """Run the command of the task that the agent has started, and leave its result in ClearML."""
    task = clearml().Task.init(auto_connect_arg_parser=False, auto_connect_frameworks=False, auto_connect_streams=False)
    description = json.loads(task.get_configuration_object(CONFIGURATION))
    job = Job(task, description)
    task.register_abort_callback(job.abort, callback_execution_timeout=ABORT_LIMIT_S)
    with tempfile.TemporaryDirectory(prefix=WORK) as folder:
        code = job.run(Path(folder).resolve())
    sys.exit(FAILED if code else 0)


class Job:
    """One run of a command for a ClearML task."""

    def __init__(
        self, task: Any, description: Mapping[str, Any], *, on_line: Callable[[str], None] = lambda _: None
    ) -> None:
        self.task, self.description, self._on_line = task, description, on_line
        self._process: subprocess.Popen[str] | None = None
        self._aborted = threading.Event()
        self._ended = threading.Event()

    def abort(self) -> None:
        """Pass on that somebody stopped the task, and wait until the command has undone what it must."""
        self._aborted.set()
        process = self._process
        if process is not None:
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(signal.SIGINT)
        self._ended.wait(ABORT_LIMIT_S)

    def run(self, folder: Path) -> int:
        """Run the command in `folder` and return its exit code; whatever happens, a result is left."""
        told = folder / "error.json"
        stdout = folder / "stdout.txt"
        document: dict[str, Any] = {"worker": os.environ.get("CLEARML_WORKER_ID", "")}
        try:
            try:
                self._fetch_inputs(folder)
                code = self._command(folder, stdout=stdout, told=told)
                self._report(folder, stdout)
                outputs = self._send_outputs(folder)
                document |= {"exit_code": code, "stdout": _text(stdout), "error": _json(told), "outputs": outputs}
            except Tao2ServeError as error:
                code = error.exit_code
                document |= {"exit_code": code, "stdout": "", "error": _document(error), "outputs": {}}
            self._leave(document, folder)
            if code:
                self._fail(document)
            return code
        finally:
            self._ended.set()

    def _fetch_inputs(self, folder: Path) -> None:
        for entry in self.description["inputs"]:
            if self._aborted.is_set():
                raise Tao2ServeError("tao2serve", "was stopped before it began")
            artifact = self.task.artifacts.get(entry["artifact"])
            source = download(
                str(artifact.url) if artifact is not None else "",
                subject=f"input {entry['place']}",
                store=STORE,
                sha256=entry["sha256"],
                size=entry["bytes"],
            )
            target = folder / entry["place"]
            target.parent.mkdir(parents=True, exist_ok=True)
            if entry["folder"]:
                unpack(source, target)
            else:
                shutil.copyfile(source, target)

    def _command(self, folder: Path, *, stdout: Path, told: Path) -> int:
        for output in self.description["outputs"]:
            if not output["file"]:
                (folder / output["place"]).mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", "tao2serve", *self.description["arguments"]]
        environment = _environment(self.description["settings"]) | {
            TELL_VARIABLE: str(told), TASK_VARIABLE: str(self.task.id),
        }  # fmt: skip
        with stdout.open("w", encoding="utf-8") as file:
            process = subprocess.Popen(
                command, cwd=folder, env=environment, stdin=subprocess.DEVNULL, stdout=file, stderr=subprocess.PIPE,
                text=True, errors="replace", start_new_session=True,
            )  # fmt: skip
            self._process = process
            if self._aborted.is_set():  # in between
                process.send_signal(signal.SIGINT)
            assert process.stderr is not None
            with _Console(self.task) as console:
                for line in process.stderr:
                    console.say(line.rstrip("\n"))
                    self._on_line(line.rstrip("\n"))
            code = process.wait()
        return code if code >= 0 else 128 - code

    def _report(self, folder: Path, stdout: Path) -> None:
        """Show on the task what the command's JSON document says; what cannot be shown is no failure of its work."""
        if not self.description.get("reports"):
            return
        try:
            report(self.task, _json(stdout), [folder / output["place"] for output in self.description["outputs"]])
        except Exception:
            log.warning("the report could not be sent", exc_info=True)

    def _send_outputs(self, folder: Path) -> dict[str, str]:
        """Upload what the command left in its places; return the digest of each artifact."""
        sent: dict[str, str] = {}
        for index, output in enumerate(self.description["outputs"]):
            place = folder / output["place"]
            if output["file"]:
                source = place if place.is_file() else None
            else:
                source = write_zip(place, folder / f"{output_key(index)}.zip") if any(place.iterdir()) else None
            if source is not None:
                sent[output_key(index)] = self._upload(output_key(index), source)
        return sent

    def _upload(self, key: str, path: Path) -> str:
        digest = sha256_of(path)
        metadata = {"sha256": digest}
        if not self.task.upload_artifact(key, artifact_object=str(path), metadata=metadata, wait_on_upload=True):
            raise Tao2ServeError(f"output {path.name}", "could not be uploaded to ClearML")
        return digest

    def _leave(self, document: Mapping[str, Any], folder: Path) -> None:
        path = folder / "result.json"
        path.write_text(json.dumps(document), encoding="utf-8")
        self._upload(RESULT, path)
        self.task.flush(wait_for_uploads=True)

    def _fail(self, document: Mapping[str, Any]) -> None:
        """Say in ClearML how it ended; the agent knows no more than that it did."""
        error = (document.get("error") or {}).get("error") or {}
        message = f"{error.get('subject', '')} {error.get('fact', '')}".strip()
        with contextlib.suppress(Exception):  # it may be stopped by now
            if not self._aborted.is_set():
                self.task.mark_failed(
                    status_reason=f"exit code {document['exit_code']}", status_message=message[:1000], force=True
                )


class _Console:
    """Sends lines to the task's console about once a second, in order, and no later than the block ends."""

    def __init__(self, task: Any) -> None:
        self._task = str(task.id)
        self._worker = os.environ.get("CLEARML_WORKER_ID", "")
        self._lines: list[str] = []
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._go_on, name="tao2serve console", daemon=True)

    def __enter__(self) -> _Console:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()
        self._send()

    def say(self, line: str) -> None:
        with self._lock:
            self._lines.append(LINE + line)

    def _go_on(self) -> None:
        while not self._over.wait(REPORT_EVERY_S):
            self._send()

    def _send(self) -> None:
        with self._lock:
            lines, self._lines = self._lines, []
        if not lines:
            return
        try:
            call(
                "events", "add", type="log", task=self._task, worker=self._worker, level="info",
                timestamp=round(time.time() * 1000), msg="\n".join(lines) + "\n",
            )  # fmt: skip
        except Exception:  # the work goes on
            log.warning("console lines could not be sent", exc_info=True)


def _environment(settings: Mapping[str, Any]) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if name not in HIDDEN}
    for name, value in settings.items():
        variable = f"TAO2SERVE_{name.upper()}"
        if name not in PLACES or not kept.get(variable):
            kept[variable] = str(value)
    return kept


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="replace")


def _json(path: Path) -> Any:
    return json.loads(_text(path)) if path.is_file() else None


def _document(error: Tao2ServeError) -> dict[str, Any]:
    return {"outcome": "error", "exit_code": error.exit_code, "error": error.to_dict()}


if __name__ == "__main__":
    main()
