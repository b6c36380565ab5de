"""What is going on: on a terminal a live list of steps, or a bar for many pictures; plain lines elsewhere."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Any, Final, Literal

from tao2serve.cli.output import InterruptionError, plain, print_text
from tao2serve.steps import StepEvent, Steps

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderResult

__all__ = ["Count", "shown_count", "shown_steps"]

NEWS_EVERY_S: Final = 5.0


@contextlib.contextmanager
def shown_steps(stream: IO[str], *, live: bool = True) -> Iterator[Steps]:
    """Yield Steps whose progress is shown on `stream` while the block runs; without `live` as plain lines.

    An interrupt becomes InterruptionError, which names the step: the parser would pass on no more than its exit code.
    """
    try:
        with _shown(stream, live=live) as steps:
            yield steps
    except KeyboardInterrupt as interrupt:
        raise InterruptionError(interrupt) from interrupt


@contextlib.contextmanager
def _shown(stream: IO[str], *, live: bool) -> Iterator[Steps]:
    if live and stream.isatty():
        from rich.console import Console
        from rich.live import Live

        board = _Board()
        # What libraries print belongs into the log, not above the list.
        picture = Live(
            board, console=Console(file=stream), refresh_per_second=10, redirect_stdout=False, redirect_stderr=False
        )
        picture.start()
        try:
            yield Steps(watch=board.see)
        finally:
            board.finished = True
            with contextlib.suppress(OSError):  # the terminal may be gone
                picture.stop()
    else:
        lines = _Lines(stream)
        yield Steps(watch=lines.see)


class _Lines:
    """Plain lines; what is new within a step at most every few seconds, so that a log stays readable."""

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream
        self._told = 0.0

    def see(self, event: StepEvent) -> None:
        now = time.monotonic()
        if event.kind == "news" and now - self._told < NEWS_EVERY_S:
            return
        self._told = now
        _plain(event, self._stream)


def _plain(event: StepEvent, stream: IO[str]) -> None:
    if event.kind == "done":
        detail = f": {event.detail}" if event.detail else ""
        stream.write(f"done    {event.name} ({event.seconds:.1f} s){detail}\n")
    elif event.kind == "failed":
        stream.write(f"failed  {event.name} ({event.seconds:.1f} s)\n")
    elif event.kind == "started":
        stream.write(f"...     {event.name}\n")
    elif event.kind == "news":
        stream.write(f"...     {event.name}: {event.detail}\n")
    stream.flush()


class _Board:
    """The live list; rich asks for its picture ten times a second."""

    def __init__(self) -> None:
        from rich.spinner import Spinner

        self._spinner = Spinner("dots")  # one for all: a new one would always show its first picture
        self._rows: list[StepEvent] = []
        self.finished = False  # then all of it is shown, with every detail in full
        self._started: float = 0.0

    def see(self, event: StepEvent) -> None:
        if event.kind == "started":
            self._started = time.monotonic()
            self._rows.append(event)
        else:
            self._rows[-1] = event

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        from rich.table import Table
        from rich.text import Text

        # While it runs a row is a line, and only the last rows that fit are shown: the current one always is.
        rows = self._rows if self.finished else self._rows[-max(console.height - 2, 1) :]
        table = Table.grid(padding=(0, 1), expand=True)
        table.add_column(width=2)
        table.add_column(no_wrap=True, min_width=max((len(row.name) for row in rows), default=0))
        table.add_column(no_wrap=True, min_width=len("100.0 s"), justify="right")
        overflow: Literal["fold", "ellipsis"] = "fold" if self.finished else "ellipsis"
        table.add_column(style="dim", ratio=1, no_wrap=not self.finished, overflow=overflow)
        for row in rows:
            if row.kind in ("started", "news"):
                mark: Any = self._spinner
                seconds = time.monotonic() - self._started
            else:
                mark = Text("✓", style="green") if row.kind == "done" else Text("✗", style="bold red")
                seconds = row.seconds
            detail = row.detail if row.kind != "failed" else ""
            table.add_row(mark, row.name, f"{seconds:.1f} s", Text(detail))
        yield table


@dataclass(frozen=True, slots=True, kw_only=True)
class Count:
    """Pictures being counted: `step` counts one.

    Past what shows the count, `say` prints a line of the result, and `note` one that is no result.
    """

    step: Callable[[bool], None]
    say: Callable[[str], None]
    note: Callable[[str], None]


@contextlib.contextmanager
def shown_count(stream: IO[str], *, total: int, shown: bool) -> Iterator[Count]:
    """Yield a Count of `total` pictures that `stream` shows: a bar on a terminal, a line now and then elsewhere."""

    def note(text: str) -> None:
        with contextlib.suppress(OSError):  # nobody may be looking
            stream.write(plain(text) + "\n")
            stream.flush()

    if not shown or total < 2:
        yield Count(step=lambda _refused: None, say=print_text, note=note)
    elif stream.isatty():
        with _bar(stream, total) as count:
            yield count
    else:
        lines = _CountLines(note, total)
        yield Count(step=lines.step, say=print_text, note=note)


class _CountLines:
    def __init__(self, note: Callable[[str], None], total: int) -> None:
        self._note, self._total = note, total
        self._done = self._refused = 0
        self._told = time.monotonic()

    def step(self, refused: bool) -> None:
        self._done += 1
        self._refused += refused
        now = time.monotonic()
        if now - self._told >= NEWS_EVERY_S:
            self._told = now
            words = f", {self._refused:,} refused" if self._refused else ""
            self._note(f"...     {self._done:,} of {self._total:,} pictures{words}")


@contextlib.contextmanager
def _bar(stream: IO[str], total: int) -> Iterator[Count]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
    from rich.text import Text

    console = Console(file=stream)
    columns = (
        BarColumn(bar_width=None), MofNCompleteColumn(), TextColumn("{task.fields[refused]}", style="red"),
        TimeRemainingColumn(),
    )  # fmt: skip
    progress = Progress(*columns, console=console, transient=True, redirect_stdout=False, redirect_stderr=False)
    task = progress.add_task("", total=total, refused="")
    refused = 0

    def step(was_refused: bool) -> None:
        nonlocal refused
        refused += was_refused
        progress.update(task, advance=1, refused=f"{refused:,} refused" if refused else "")

    def note(text: str) -> None:
        console.print(Text(plain(text)), soft_wrap=True)

    def say(text: str) -> None:
        if sys.stdout.isatty():  # the same screen: the bar has to move down
            note(text)
        else:
            print_text(text)

    progress.start()
    try:
        yield Count(step=step, say=say, note=note)
    finally:
        with contextlib.suppress(OSError):  # the terminal may be gone
            progress.stop()
