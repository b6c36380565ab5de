"""Which process this is: what tells it from every other one, on this machine and on others, for as long as it lives."""

from __future__ import annotations

import getpass
import os
import socket
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

__all__ = ["Holder", "holder", "process_identity"]

ENDED: Final = "ZX"  # zombie, dead
BOOT: Final = Path("/proc/sys/kernel/random/boot_id")


@dataclass(frozen=True, slots=True, kw_only=True)
class Holder:
    """A process that holds something others must know of; `place` is the machine, its boot and its pid namespace."""

    user: str
    host: str
    place: str
    pid: int
    identity: str

    def __str__(self) -> str:
        return f"{self.user}@{self.host}, pid {self.pid}"

    def is_gone(self) -> bool:
        """Whether the process is known to have ended, which is only to be seen from where it ran."""
        return self._lives() is False

    def is_here(self) -> bool:
        """Whether the process is known to live; neither is known of another machine's, nor of a hidden one."""
        return self._lives() is True

    def _lives(self) -> bool | None:
        if self.place != _place():
            return None
        try:
            return process_identity(self.pid) == self.identity and _stat(self.pid)[0] not in ENDED
        except OSError:  # with /proc mounted hidepid=2, as if there were none such, where another user's lives
            return None if _is_taken(self.pid) else False


def holder() -> Holder:
    """Return this process."""
    user = str(os.getuid())
    with suppress(KeyError, OSError):  # a container's user may have no name
        user = getpass.getuser()
    pid = os.getpid()
    return Holder(user=user, host=socket.gethostname(), place=_place(), pid=pid, identity=process_identity(pid))


def process_identity(pid: int) -> str:
    """Return boot and start tick of a process; psutil's create_time moves when the clock is set.

    Raises OSError if there is no such process.
    """
    return f"{_boot()}:{_stat(pid)[19]}"


def _is_taken(pid: int) -> bool:
    """Whether some process has this number."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _stat(pid: int) -> list[str]:
    """Return the fields from the third on, the state; the name before them may hold spaces and parentheses."""
    return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()


def _boot() -> str:
    return BOOT.read_text(encoding="ascii").strip()


def _place() -> str:
    """Containers on one machine share its boot, and some its name, but each numbers its processes anew."""
    return f"{socket.gethostname()}/{_boot()}/{Path('/proc/self/ns/pid').readlink()}"
