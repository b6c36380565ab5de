"""CPU and memory of processes whose use is known, because they say it themselves."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass

import psutil
import pytest

from tao2serve.errors import ServiceError
from tao2serve.loadtest.processes import (
    Reading,
    ServingProcesses,
    Spent,
    listeners,
    used_by_machine,
    used_by_processes,
)
from tao2serve.loadtest.sampling import Sample

# Listens; its child takes a line, uses half a second of CPU and 50 MB, and says so.
SERVER = """
import socket, subprocess, sys
child = '''
import sys, time
sys.stdin.readline()
kept = bytearray(50_000_000)
end = time.process_time() + 0.5
while time.process_time() < end:
    pass
print("done", flush=True)
sys.stdin.readline()
'''
listening = socket.create_server(("127.0.0.1", 0))
print(listening.getsockname()[1], flush=True)
subprocess.run([sys.executable, "-c", child])
"""


@dataclass(frozen=True, slots=True)
class Server:
    process: subprocess.Popen[str]
    port: int

    def work(self) -> None:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        assert self.process.stdout.readline() == "done\n"


@pytest.fixture
def server() -> Iterator[Server]:
    command = [sys.executable, "-c", SERVER]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            port = int(process.stdout.readline())
            while not psutil.Process(process.pid).children():
                time.sleep(0.01)
            yield Server(process, port)
        finally:
            assert process.stdin is not None
            process.stdin.close()  # ends the child, and so the server


def test_a_server_and_its_children(server: Server) -> None:
    """Found by the port; what the child used between two readings is what it meant to use; all of its memory shows."""
    roots, why = listeners(server.port)
    assert (roots, why) == ((server.process.pid,), "")
    serving = ServingProcesses(role="endpoint", address=f"127.0.0.1:{server.port}", roots=roots)
    first = Sample(at_s=0.0, value=serving.read())
    server.work()
    last = Sample(at_s=2.0, value=serving.read())
    used = used_by_processes(serving, [first, last])
    assert used.cpu_cores * 2.0 == pytest.approx(0.5, abs=0.15)
    assert len(used.pids) == 2
    assert used.pids[0] != used.pids[1]
    assert used.rss_max_bytes - used.rss_mean_bytes > 20e6
    machine = used_by_machine([first, last])
    assert machine is not None
    assert 0 < machine.cpu_ratio <= 1
    assert machine.cpus == psutil.cpu_count()


def test_a_server_that_ended() -> None:
    """Nothing is there to be read, and that is said."""
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        process.wait()
        serving = ServingProcesses(role="Triton", address="127.0.0.1:8001", roots=(process.pid,))
        with pytest.raises(ServiceError, match="has no process any more"):
            serving.read()


def test_a_port_where_nobody_listens() -> None:
    """No processes, and the reason in words."""
    roots, why = listeners(1)
    assert roots == ()
    assert why == "no process listens on port 1 of this machine"


def test_processes_that_come_and_go() -> None:
    """A worker that appears counts from its beginning, one that ends as far as it was seen."""

    def sample(at_s: float, **spent: float) -> Sample[Reading]:
        processes = {(int(name[1:]), 1.0): Spent(cpu_s=cpu_s, rss_bytes=100) for name, cpu_s in spent.items()}
        return Sample(at_s=at_s, value=Reading(processes=processes, machine_busy_s=at_s, machine_total_s=2 * at_s))

    serving = ServingProcesses(role="Triton", address="127.0.0.1:8001", roots=(1,))
    samples = [sample(10, p1=5.0, p2=1.0), sample(11, p1=5.5, p2=1.25, p3=0.25), sample(12, p1=6.0, p3=1.0)]
    used = used_by_processes(serving, samples)
    assert used.cpu_cores == pytest.approx((1.0 + 0.25 + 1.0) / 2)
    assert used.pids == (1, 2, 3)
    assert (used.rss_mean_bytes, used.rss_max_bytes) == (233, 300)
    machine = used_by_machine(samples)
    assert machine is not None
    assert machine.cpu_ratio == 0.5
