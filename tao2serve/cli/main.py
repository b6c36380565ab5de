"""The command line's entry: the list of commands, and the one boundary where errors become exit codes."""

from __future__ import annotations

import contextlib
import errno
import os
import sys
import tempfile
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from tao2serve import __version__
from tao2serve.cli import (
    adopt,
    build,
    config,
    decode,
    demo,
    deploy,
    doctor,
    export,
    inspect,
    loadtest,
    models,
    pipeline,
    predict,
    promote,
    render,
    rollback,
    sandbox,
    spec,
    status,
    step,
    tao,
    undeploy,
    verify,
    watch,
)
from tao2serve.cli.elsewhere import QueueCommand, with_queue
from tao2serve.cli.help import Command
from tao2serve.cli.output import INTERRUPTED, InterruptionError, Told, print_error
from tao2serve.errors import Tao2ServeError, ToolError, UsageError
from tao2serve.interrupts import Interrupts, ended_by_signals
from tao2serve.registry.patience import away
from tao2serve.steps import note_of

# A path of the user's that is not to be used so: no right to it, or a file where a folder is needed, or the reverse.
NO_PLACE = frozenset(
    {
        *(errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EISDIR),
        *(errno.EEXIST, errno.ELOOP, errno.ENAMETOOLONG),
    }
)
NO_TEMPORARY = "No usable temporary directory"  # the standard library's words, and all there is to know it by

# Without rich markup the help needs no rich, and answers in a tenth of a second.
app = typer.Typer(
    name="tao2serve",
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    no_args_is_help=True,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Start here: tao2serve demo",
)


def _version(asked: bool) -> None:
    if asked:
        sys.stdout.write(f"tao2serve {__version__}\n")
        raise typer.Exit


@app.callback()
def tao2serve(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Take detectors trained with NVIDIA TAO from ClearML to a verified, load-tested endpoint.

    Example: tao2serve deploy --project street-detector --endpoint street --image street.jpg
    """


app.command("demo", cls=Command, short_help="Show all of it once, on a bare machine.")(demo.demo)
app.add_typer(sandbox.app, name="sandbox", short_help="Start, inspect and stop the local stack.")
app.command("models", cls=Command, short_help="List the trained TAO models in ClearML.")(models.models)
app.command("adopt", cls=Command, short_help="Put a finished TAO training into ClearML.")(adopt.adopt)
app.command("export", cls=QueueCommand, short_help="Turn a trained model into ONNX.")(with_queue(export.export))
app.command("inspect", cls=Command, short_help="Say what a model file or spec is.")(inspect.inspect)
app.command("verify", cls=QueueCommand, short_help="Compare two forms of a model.")(with_queue(verify.verify))
app.command("decode", cls=Command, short_help="Turn raw grids into detections.")(decode.decode)
app.command("build", cls=Command, short_help="Write Triton models without deploying.")(build.build)
app.command("deploy", cls=QueueCommand, short_help="Serve a trained model as an endpoint.")(with_queue(deploy.deploy))
app.command("status", cls=Command, short_help="Show what serves, and what is left over.")(status.status)
app.command("promote", cls=Command, short_help="Give a version its endpoint's requests.")(promote.promote)
app.command("rollback", cls=Command, short_help="Go back to the route before.")(rollback.rollback)
app.command("undeploy", cls=Command, short_help="Remove versions that get no requests.")(undeploy.undeploy)
app.command("predict", cls=Command, short_help="Ask an endpoint about pictures.")(predict.predict)
app.command("loadtest", cls=QueueCommand, short_help="Measure an endpoint under load.")(with_queue(loadtest.loadtest))
app.command("pipeline", cls=Command, short_help="All of it as a ClearML pipeline.")(pipeline.pipeline)
app.command("watch", cls=Command, short_help="Start it for every model that gets a tag.")(watch.watch)
app.command("step", cls=Command, hidden=True)(step.step)
app.add_typer(spec.app, name="spec", short_help="Examine an experiment spec, and have ClearML track it.")
app.add_typer(tao.app, name="tao", short_help="Train with NVIDIA TAO, tracked in ClearML.")
app.command("doctor", cls=Command, short_help="Say what is here, missing or wrong.")(doctor.doctor)
app.add_typer(config.app, name="config", short_help="Show settings and where they come from.")
app.add_typer(render.app, name="render", short_help="Write files for running all of it elsewhere.")


def main() -> None:
    """Run the command line and exit with its code (tao2serve.errors; 130 when interrupted)."""
    code = run(sys.argv[1:])
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:  # whoever read it has gone, as `head` does; Python would make that exit code 120
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
    # An interrupt in an exec of text, as modules have that make dataclasses, is remembered by Python, which would end
    # `python -m tao2serve` by SIGINT instead of the code, until the next text is run.
    exec("")  # noqa: S102
    if away() is not None:
        # What the SDK still wants to send at the end finds nobody, and would only keep the process.
        os._exit(code)
    sys.exit(code)


def run(arguments: list[str]) -> int:
    """Run one command and return its exit code; nothing but KeyboardInterrupt's code and ours leaves here."""
    with ended_by_signals() as interrupts:
        return _run(arguments, interrupts)


def _run(arguments: list[str], interrupts: Interrupts) -> int:
    as_json = "--json" in arguments
    try:
        outcome: Any = app(arguments, prog_name="tao2serve", standalone_mode=False)
    except InterruptionError as interruption:
        return _interrupted(interruption, as_json=as_json)
    except Tao2ServeError as error:
        print_error(error, as_json=as_json)
        return error.exit_code
    except (KeyboardInterrupt, typer.Abort):
        return _interrupted(InterruptionError(), as_json=as_json)
    except BrokenPipeError:
        return Tao2ServeError.exit_code
    except Exception as error:
        if interrupts.came:
            return _interrupted(InterruptionError(error), as_json=as_json)
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            return _disk_full(error, as_json=as_json)
        if isinstance(error, OSError) and error.errno in NO_PLACE and error.filename:
            return _no_place(error, as_json=as_json)
        if isinstance(error, FileNotFoundError) and (error.strerror or "").startswith(NO_TEMPORARY):
            return _no_temporary_folder(error, as_json=as_json)
        if (gone := away()) is not None:  # the SDK passes it on as it likes
            gone.step = gone.step or note_of(error, "step")
            gone.aftermath = gone.aftermath or note_of(error, "aftermath")
            print_error(gone, as_json=as_json)
            return gone.exit_code
        return _unexpected(error, as_json=as_json)
    if outcome == INTERRUPTED and not isinstance(outcome, Told):  # how the parser passes KeyboardInterrupt on
        return _interrupted(InterruptionError(), as_json=as_json)
    return outcome if isinstance(outcome, int) else 0


def _disk_full(error: OSError, *, as_json: bool) -> int:
    """A full disk is nobody's defect; the result itself may have been what had no room."""
    full = ToolError(str(error.filename or "the disk, or where stdout goes"), "is full", hint="make room, run it again")
    with contextlib.suppress(OSError):
        print_error(full, as_json=as_json)
    return full.exit_code


def _no_place(error: OSError, *, as_json: bool) -> int:
    """Nor is a path that this user may not use, or that leads through a file; what was done with it is in the log."""
    wrong = UsageError(
        os.fsdecode(error.filename) if isinstance(error.filename, str | bytes) else str(error.filename),
        "cannot be used",
        evidence=error.strerror or "",
        hint="name another, or see to it that you may read and write there",
        log=_keep_traceback(error),
    )
    wrong.step, wrong.aftermath = note_of(error, "step"), note_of(error, "aftermath")
    print_error(wrong, as_json=as_json)
    return wrong.exit_code


def _no_temporary_folder(error: OSError, *, as_json: bool) -> int:
    """Nor is a machine on which no temporary folder can be written, or all are full."""
    missing = ToolError(
        "temporary folder",
        "cannot be written, or is full",
        evidence=error.strerror or "",
        hint="make room, or choose another: export TMPDIR=DIR",
    )
    print_error(missing, as_json=as_json)
    return missing.exit_code


def _interrupted(interruption: InterruptionError, *, as_json: bool) -> int:
    with contextlib.suppress(OSError):  # a closed terminal is one way to be interrupted
        print_error(interruption, as_json=as_json)
    return INTERRUPTED


def _unexpected(error: Exception, *, as_json: bool) -> int:
    """Report wrong usage, which the parser raises with a method of its own, or a defect of ours."""
    message = getattr(error, "format_message", None)
    if type(error).__name__ == "NoArgsIsHelpError" and message is not None:
        sys.stderr.write(message() + "\n")
        return UsageError.exit_code
    if message is not None:
        context = getattr(error, "ctx", None)
        command = context.command_path if context is not None else "tao2serve"
        wrong = UsageError(command, f"was not understood: {message()}", hint=f"{command} --help")
        print_error(wrong, as_json=as_json)
        return wrong.exit_code
    log = _keep_traceback(error)
    defect = Tao2ServeError(
        "tao2serve",
        "has a defect, sorry",
        evidence=f"{type(error).__name__}: {error}",
        hint="report it with the log",
        log=log,
    )
    defect.step, defect.aftermath = note_of(error, "step"), note_of(error, "aftermath")
    print_error(defect, as_json=as_json)
    return defect.exit_code


def _keep_traceback(error: Exception) -> Path | None:
    """Write the traceback where logs go, or to the temporary folder if that cannot be written."""
    from tao2serve.config import home

    places: tuple[Callable[[], Path], ...] = (lambda: home() / "logs", lambda: Path(tempfile.gettempdir()))
    for place in places:
        with contextlib.suppress(OSError):  # there may be no temporary folder either
            folder = place()
            folder.mkdir(parents=True, exist_ok=True)
            log = folder / "tao2serve-defect.log"
            log.write_text("".join(traceback.format_exception(error)), encoding="utf-8")
            return log
    return None
