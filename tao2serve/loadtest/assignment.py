"""What one generator process is to do: the plan without its files, and which part of it is this process's."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from tao2serve.loadtest.arrivals import arrivals
from tao2serve.loadtest.choosing import image_order, target_order
from tao2serve.loadtest.plan import ClosedLoop, LoadPlan, OpenLoop, Order, Shape, Target

__all__ = ["GRPC_OPEN_LIMIT", "Assignment"]

# An open loop must be able to keep everything open that a server which stalls until the timeout would hold, and
# Poisson arrivals come in clusters: twice that, and some.
_CLUSTERS = 2
_SPARE_REQUESTS = 100
# gRPC under gevent waits for each request in a thread of a pool of 1,024, and what comes beyond waits there unseen; it
# has work of its own for some of them.
GRPC_OPEN_LIMIT = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Assignment:
    """The part of one process; `process` counts from 0 to `processes` - 1. It travels as JSON."""

    targets: tuple[Target, ...]
    shape: Shape
    order: Order
    seed: int
    warmup_s: float
    run_time_s: float
    timeout_s: float
    process: int = 0
    processes: int = 1

    @classmethod
    def of(cls, plan: LoadPlan, *, process: int = 0, processes: int = 1) -> Assignment:
        return cls(
            targets=plan.targets,
            shape=plan.shape,
            order=plan.order,
            seed=plan.seed,
            warmup_s=plan.warmup_s,
            run_time_s=plan.run_time_s,
            timeout_s=plan.timeout_s,
            process=process,
            processes=processes,
        )

    def to_dict(self) -> dict[str, Any]:
        return {**asdict(self), "shape": asdict(self.shape), "targets": [asdict(target) for target in self.targets]}

    @classmethod
    def from_dict(cls, document: Mapping[str, Any]) -> Assignment:
        shape: Mapping[str, Any] = document["shape"]
        return cls(
            **{
                **document,
                "targets": tuple(
                    Target(**{**target, "behind": tuple(target["behind"])}) for target in document["targets"]
                ),
                "shape": ClosedLoop(**shape) if "users" in shape else OpenLoop(**shape),
            }
        )

    @property
    def users(self) -> int:
        """Users of locust in all processes: those of a closed loop, or one a process that keeps the schedule."""
        return self.shape.users if isinstance(self.shape, ClosedLoop) else self.processes

    @property
    def open_limit(self) -> int:
        """Requests that one process may have open at once; what gRPC cannot keep open it holds back, and counts."""
        if isinstance(self.shape, ClosedLoop):
            wanted = self.shape.users
        else:
            rate_rps = self.shape.rate_rps / self.processes
            wanted = math.ceil(rate_rps * (self.timeout_s + 1) * _CLUSTERS) + _SPARE_REQUESTS
        by_grpc = any(target.protocol == "triton-grpc" for target in self.targets)
        return min(wanted, GRPC_OPEN_LIMIT) if by_grpc else wanted

    def user_number(self, local: int) -> int:
        """Return a number for the `local`-th user of this process that no user of another process has."""
        return self.process + local * self.processes

    def starts_s(self) -> Iterator[float]:
        """Yield when to send, in seconds from the begin of the warm-up; raises TypeError in a closed loop."""
        if isinstance(self.shape, ClosedLoop):
            raise TypeError("a closed loop has no schedule")
        return arrivals(self.shape, seed=self.seed, process=self.process, processes=self.processes)

    def images(self, count: int, user: int) -> Iterator[int]:
        return image_order(count, self.order, seed=self.seed, sender=user, senders=self.users)

    def target_indices(self, user: int) -> Iterator[int]:
        return target_order([target.weight for target in self.targets], seed=self.seed, sender=user)
