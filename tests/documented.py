"""The documents' fenced blocks and commands, as a reader finds them."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[1]
README: Final = "README.md"
TABLE: Final = "README.md, table of commands"
SHELL: Final = "sh"
# What a fenced block may be. Only the first is run.
LANGUAGES: Final = frozenset({SHELL, "text", "json", "yaml", "toml", "python", "mermaid"})
FENCE: Final = re.compile(r"^(?P<indent> *)```(?P<language>.*)$")
ROW: Final = re.compile(r"^\| `[^|]*\|.*\| `(?P<example>tao2serve [^`]*)`[^|]*\|$")
CODE: Final = re.compile(r"(?<!`)`([^`\n]+)`(?!`)")
EXIT: Final = re.compile(r"\bexits? (\d+)\b")
CONTINUED: Final = ("\\", "&&", "||", "|")


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """A fenced block; `line` is that of its fence, counted from 1, and `text` is without the fence's indentation."""

    line: int
    language: str
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """One command as a page shows it: `text` verbatim, `command` on one line and without the comment behind it."""

    page: str
    line: int
    text: str

    @property
    def command(self) -> str:
        return uncommented(self.text)

    @property
    def exit_code(self) -> int:
        """What a comment behind it says (`# exits 8`), else 0."""
        said = EXIT.search(self.text.replace("\\\n", " ").removeprefix(self.command))
        return int(said.group(1)) if said else 0


def uncommented(text: str) -> str:
    """A command on one line, single blanks between its words, without the comment behind it."""
    line = " ".join(text.replace("\\\n", " ").split("\n"))
    return re.sub(r"\s+", " ", re.split(r"\s# ", line)[0]).strip()


def pages() -> tuple[str, ...]:
    """Every document that shows commands, by its path in the repository; new ones in these folders are found."""
    found = [README, "CONTRIBUTING.md", "model_repo/README.md", "benchmarks/README.md"]
    for pattern in ("docs/*.md", "examples/**/*.md", "ops/*.md"):
        found += sorted(path.relative_to(ROOT).as_posix() for path in ROOT.glob(pattern))
    return tuple(found)


def text_of(page: str) -> str:
    return (ROOT / page).read_text(encoding="utf-8")


def blocks(text: str) -> Iterator[Block]:
    """Every fenced block, also one in a list; raises ValueError for one that does not end."""
    opened: tuple[int, int, str] | None = None
    lines: list[str] = []
    for number, line in enumerate(text.splitlines(), 1):
        fence = FENCE.match(line)
        if opened is None and fence:
            opened, lines = (number, len(fence["indent"]), fence["language"].strip()), []
        elif opened is not None and fence and not fence["language"]:
            yield Block(line=opened[0], language=opened[2], text="".join(f"{one[opened[1] :]}\n" for one in lines))
            opened = None
        elif opened is not None:
            lines.append(line)
    if opened is not None:
        raise ValueError(f"the block of line {opened[0]} does not end")


def commands(page: str) -> list[Shown]:
    """The commands of a page's shell blocks in their order; of TABLE the examples, one a row."""
    if page == TABLE:
        rows = [(number, ROW.match(line)) for number, line in enumerate(text_of(README).splitlines(), 1)]
        return [Shown(page=page, line=number, text=row["example"]) for number, row in rows if row]
    found = []
    for block in blocks(text_of(page)):
        if block.language == SHELL:
            found += [Shown(page=page, line=block.line + at, text=text) for at, text in split(block.text)]
    return found


def split(text: str) -> Iterator[tuple[int, str]]:
    """Cut a block into its commands, each with its line in the block; comments on a line of their own are none."""
    pending, began = "", 0
    for number, line in enumerate(text.splitlines(), 1):
        if not pending and (not line.strip() or line.lstrip().startswith("#")):
            continue
        began = began if pending else number
        pending += line
        if line.rstrip().endswith(CONTINUED):
            pending += "\n"
            continue
        yield began, pending
        pending = ""
    if pending:
        raise ValueError(f"a command is cut off: {pending!r}")


def inline(page: str) -> list[str]:
    """What stands in a page's running text and tables between single backticks."""
    text = text_of(page)
    for block in blocks(text):
        text = text.replace(block.text, "\n") if block.text.strip() else text
    return CODE.findall(re.sub(r"^ *```.*$", "", text, flags=re.MULTILINE))


def simple_commands(text: str) -> list[list[str]]:
    """Each call of tao2serve in a command, as words; also what a deployer's container or pod is told to run."""
    text = re.sub(r"docker compose run --rm deployer ", "tao2serve ", text)
    found = []
    for part in re.split(r"&&|\|\||[|;]|\$\(|\)", text):
        called = re.search(r"(?:^|\s|\")tao2serve(?:\s+(.*))?$", part.strip().rstrip('"'))
        if called:
            words = shlex.split(called.group(1) or "", comments=True)
            found.append(words[: next((at for at, word in enumerate(words) if word.startswith((">", "<"))), None)])
    return found
