"""What is varied: where pictures are read, and how Triton batches and shares the detector."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Final, Literal, TypeAlias, get_args

from tao2serve.config import PlacementKind, Settings
from tao2serve.errors import UsageError
from tao2serve.tuned import checked

__all__ = ["BATCHES", "INSTANCES", "KNOBS", "Candidate", "Grid", "Knob", "default_grid", "parse_values"]

Knob: TypeAlias = Literal["placement", "instances", "max_batch_size", "queue_delay_us"]
KNOBS: Final[tuple[Knob, ...]] = get_args(Knob)
BATCHES: Final = (1, 4, 8)
_DELAYS_US: Final = (0, 1000)
INSTANCES: Final = (1, 2, 4)
_HINT: Final = "for example: --try max_batch_size=1,4,8 --try instances=1,2"


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """Settings that a version may be deployed with; the names are those of the settings."""

    placement: PlacementKind
    instances: int
    max_batch_size: int
    queue_delay_us: int

    def __str__(self) -> str:
        instances = f"{self.instances} instance{'' if self.instances == 1 else 's'}"
        batch = f"batch {self.max_batch_size}"
        return f"{self.placement}, {instances}, {batch}, {self.queue_delay_us} us"

    def settings(self) -> dict[str, Any]:
        return asdict(self)

    @property
    def plain(self) -> Candidate:
        """The candidate of the same effect: where nothing is batched, nothing waits for others."""
        return replace(self, queue_delay_us=0) if self.max_batch_size == 1 else self

    @property
    def simplicity(self) -> tuple[int, int, int, bool]:
        """Lower is simpler: less memory first, then less waiting, then fewer models."""
        return self.instances, self.max_batch_size, self.queue_delay_us, self.placement == "ensemble"

    @classmethod
    def of(cls, settings: Settings) -> Candidate:
        return cls(**{knob: getattr(settings, knob) for knob in KNOBS})


@dataclass(frozen=True, slots=True, kw_only=True)
class Grid:
    """The values that each knob may have, the present ones among them or not."""

    placement: tuple[PlacementKind, ...]
    instances: tuple[int, ...]
    max_batch_size: tuple[int, ...]
    queue_delay_us: tuple[int, ...]

    def candidates(self) -> tuple[Candidate, ...]:
        """Return every combination once, in the order of the values; those of the same effect count once."""
        every = itertools.product(*(getattr(self, knob) for knob in KNOBS))
        return tuple(dict.fromkeys(Candidate(**dict(zip(KNOBS, values, strict=True))).plain for values in every))

    def beside(self, candidate: Candidate, knob: Knob) -> tuple[Candidate, ...]:
        """Return the candidates that differ from this one in one knob."""
        varied = (replace(candidate, **{knob: value}).plain for value in getattr(self, knob))
        return tuple(other for other in dict.fromkeys(varied) if other != candidate)


def default_grid(present: Candidate, *, cpus: int | None, largest_batch: int | None = None) -> Grid:
    """Return few values of each knob around the present ones.

    More instances of a detector than CPUs gain nothing where it runs on CPUs; on a GPU a few hide its idle times.
    `cpus` is None for a GPU, and where it is not known what serves.
    `largest_batch` is that of a plan, None for a model that takes any.
    """
    batches = {size for size in BATCHES if largest_batch is None or size <= largest_batch}
    return Grid(
        placement=("endpoint", "ensemble"),
        instances=_sorted(
            {count for count in INSTANCES if cpus is None or count <= max(cpus, 1)} | {present.instances}
        ),
        max_batch_size=_sorted(batches | {present.max_batch_size}),
        queue_delay_us=_sorted({*_DELAYS_US, present.queue_delay_us}),
    )


def parse_values(texts: Sequence[str]) -> dict[str, tuple[Any, ...]]:
    """Return what `max_batch_size=1,4,8` and the like say, by knob.

    Raises UsageError for anything else, naming the setting's own limits, and for a knob that is named twice.
    """
    given: dict[str, tuple[Any, ...]] = {}
    for text in texts:
        knob, separator, values = text.partition("=")
        if knob not in KNOBS or not separator or not values:
            raise UsageError("--try", f"has {text!r}", evidence=f"it varies {', '.join(KNOBS)}", hint=_HINT)
        if knob in given:
            raise UsageError("--try", f"names {knob} twice", hint=f"all values at once: --try {knob}=A,B")
        given[knob] = tuple(dict.fromkeys(_value(knob, word.strip()) for word in values.split(",")))
    return given


def _value(knob: str, word: str) -> Any:
    """Read a value as the setting of the name would be."""
    from pydantic import ValidationError

    try:
        return checked(knob, word)
    except ValidationError as error:
        raise UsageError("--try", f"{knob} is {word!r}: {error.errors()[0]['msg']}", hint=_HINT) from error


def _sorted(values: set[int]) -> tuple[int, ...]:
    return tuple(sorted(values))
