"""What a tuning keeps: the journal that it goes on from, and the file of settings; and the values it takes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from tao2serve.config import load_settings, origins
from tao2serve.errors import InputError, UsageError
from tao2serve.tuned import Tuned, read_tuned, render_tuned
from tao2serve.tuning.candidate import Candidate, default_grid, parse_values
from tao2serve.tuning.measurement import Journal, Measurement
from tao2serve.tuning.search import tune

PRESENT = Candidate(placement="endpoint", instances=1, max_batch_size=8, queue_delay_us=0)
GRID = default_grid(PRESENT, cpus=2)
TUNED = Tuned(
    settings={"placement": "ensemble", "instances": 2, "max_batch_size": 4, "queue_delay_us": 500},
    source_sha256="ab" * 32, precision="fp32", model_sha256="cd" * 32,
    hardware={"cpu_model": 'A "fast" CPU é', "cpu_count": "2"},
)  # fmt: skip


@pytest.fixture(autouse=True)
def clean(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    monkeypatch.chdir(tmp_path)
    for name in os.environ:
        if name.startswith("TAO2SERVE_"):
            monkeypatch.delenv(name)


def measured(candidate: Candidate, block: int) -> Measurement:
    return Measurement(
        candidate=candidate, block=block, throughput_rps=10.0 * candidate.instances, p50_ms=1.5, p99_ms=None,
        requests=7, failures=1, memory_bytes=2**30, reasons=("p99=1ms was missed by 2 ms",) if block == 9 else (),
    )  # fmt: skip


class StoppedError(Exception):
    pass


def test_a_tuning_that_was_ended_goes_on_where_it_was(tmp_path: Path) -> None:
    """With nothing measured twice, a last line that was torn included, and the same outcome in the end."""
    made: list[tuple[Candidate, int]] = []
    path = tmp_path / "measurements.jsonl"

    def run(limit: int) -> object:
        journal = Journal(path=path, work="one")
        count = 0

        def measure(candidate: Candidate, block: int) -> Measurement:
            nonlocal count
            if known := journal.get(candidate, block):
                return known
            if (count := count + 1) > limit:
                raise StoppedError
            made.append((candidate, block))
            journal.add(found := measured(candidate, block))
            return found

        return tune(GRID, PRESENT, measure, objective="throughput")

    whole = tune(GRID, PRESENT, measured, objective="throughput")
    with pytest.raises(StoppedError):
        run(3)
    with path.open("a", encoding="utf-8") as file:
        file.write('{"work": "one", "measurem')
    with pytest.raises(StoppedError):
        run(4)
    assert run(100) == whole
    assert len(made) == len(set(made)) == len(whole.survey) + sum(len(one.blocks) for one in whole.finals)


def test_measurements_of_another_work_are_kept_and_not_taken(tmp_path: Path) -> None:
    """Another model, load or limit is another work; going back to the first finds its measurements again."""
    path = tmp_path / "measurements.jsonl"
    Journal(path=path, work="one").add(measured(PRESENT, 9))
    other = Journal(path=path, work="other")
    assert other.get(PRESENT, 9) is None
    other.add(measured(PRESENT, 0))
    again = Journal(path=path, work="one")
    assert (len(again), again.get(PRESENT, 9)) == (1, measured(PRESENT, 9))


def test_the_file_of_settings_is_read_as_it_was_written(tmp_path: Path) -> None:
    """Whatever characters a CPU's name has; comments are comments."""
    path = tmp_path / "tuned.toml"
    path.write_text(render_tuned(TUNED, comment=["why", "two\nlines"]), encoding="utf-8")
    read = read_tuned(path)
    assert (read.settings, read.source_sha256, read.precision) == (TUNED.settings, TUNED.source_sha256, "fp32")
    assert (read.hardware, read.model_sha256) == (TUNED.hardware, TUNED.model_sha256)
    assert path.read_text(encoding="utf-8").startswith("# why\n# two\n# lines\n")


def test_other_hardware_is_told_and_what_only_one_side_knows() -> None:
    """A file that was tuned on one GPU says so on another, and on one that nobody can name."""
    tuned = replace(TUNED, hardware={"cpu_count": "2", "gpu": "Tesla T4"})
    assert tuned.other_hardware({"cpu_count": "2", "gpu": "Tesla T4"}) == ""
    assert tuned.other_hardware({"cpu_count": "2", "gpu": "NVIDIA H100"}) == "gpu Tesla T4, here NVIDIA H100"
    assert tuned.other_hardware({"gpu": "GPU-aa"}) == "cpu_count 2, here not known; gpu Tesla T4, here GPU-aa"
    older = replace(TUNED, hardware={"cpu_count": "2"})
    assert older.other_hardware({"cpu_count": "2", "gpu": "NVIDIA H100"}) == "gpu not known, here NVIDIA H100"


MADE_FOR = "[made_for]\nsource_sha256 = 'a'\n"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("instances = 2\n", "does not say which model"),
        ("instances = \n", "cannot be read as TOML"),
        ("\0", "cannot be read as TOML"),
        ("x = " + "[" * 100_000, "cannot be read as TOML"),
        ("made_for = 3\n", "does not say which model"),
        (f"deadline_s = 2\n{MADE_FOR}", "'deadline_s'"),
        (f"instances = 0\n{MADE_FOR}", "sets instances to 0"),
        (f"placement = 'moon'\n{MADE_FOR}", "sets placement to 'moon'"),
        (f"max_batch_size = [4]\n{MADE_FOR}", "sets max_batch_size"),
    ],
)
def test_a_file_that_is_none_is_refused(tmp_path: Path, text: str, said: str) -> None:
    """A tao2serve.toml is no file of tuned settings: it does not say which model it is of. All of it is bad input."""
    (tmp_path / "tuned.toml").write_text(text, encoding="utf-8")
    with pytest.raises(InputError, match=said):
        read_tuned(tmp_path / "tuned.toml")


def test_a_file_that_cannot_be_read_is_bad_input_too(tmp_path: Path) -> None:
    """As every other file that an option names: not there, a folder, or no text."""
    (tmp_path / "latin.toml").write_bytes(b"# caf\xe9\n")
    for name, said in (("none.toml", "cannot be read"), (".", "cannot be read"), ("latin.toml", "as TOML")):
        with pytest.raises(InputError, match=said):
            read_tuned(tmp_path / name)


def test_tuned_settings_stand_between_the_file_and_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Flag over environment over tuned over tao2serve.toml over default; and each says where it comes from."""
    (tmp_path / "tao2serve.toml").write_text("instances = 7\nqueue_delay_us = 7\ndeadline_s = 7.0\n", encoding="utf-8")
    monkeypatch.setenv("TAO2SERVE_MAX_BATCH_SIZE", "16")
    monkeypatch.setenv("TAO2SERVE_INSTANCES", "")  # empty says nothing
    flags = {"placement": "endpoint", "instances": None}
    settings = load_settings(flags, tuned=TUNED.settings)
    where = origins(flags, tuned=TUNED.settings)
    told = {name: (getattr(settings, name), where[name]) for name in (*TUNED.settings, "deadline_s", "warmup")}
    assert told == {
        "placement": ("endpoint", "flag"),
        "max_batch_size": (16, "environment"),
        "instances": (2, "tuned file"),
        "queue_delay_us": (500, "tuned file"),
        "deadline_s": (7.0, "tao2serve.toml"),
        "warmup": (True, "default"),
    }


def test_a_tuned_value_that_no_setting_can_have_is_refused() -> None:
    """As one of tao2serve.toml would be, and naming the file as a place to mend."""
    with pytest.raises(UsageError, match="instances") as caught:
        load_settings(tuned={"instances": 0})
    assert "tuned" in caught.value.hint


def test_values_replace_those_of_the_default_grid() -> None:
    """Only of the knobs that are named; each value once, in the order given."""
    grid = replace(GRID, **parse_values(["max_batch_size=4,2,4", "placement=ensemble"]))
    assert (grid.max_batch_size, grid.placement, grid.instances) == ((4, 2), ("ensemble",), GRID.instances)


@pytest.mark.parametrize(
    "text",
    ["warmup=true", "instances", "instances=", "instances=0", "instances=two", "placement=moon", "queue_delay_us=-1"],
)
def test_values_that_no_setting_can_have_are_refused(text: str) -> None:
    """By the settings' own limits, before anything is measured."""
    with pytest.raises(UsageError, match="--try"):
        parse_values([text])
    with pytest.raises(UsageError, match="twice"):
        parse_values(["instances=1", "instances=2"])


def test_the_default_grid_fits_machine_and_model() -> None:
    """No more instances than CPUs, no batch beyond what a plan takes; the present values are always in it."""
    grid = default_grid(Candidate(placement="endpoint", instances=3, max_batch_size=6, queue_delay_us=50), cpus=2,
                        largest_batch=6)  # fmt: skip
    assert (grid.instances, grid.max_batch_size, grid.queue_delay_us) == ((1, 2, 3), (1, 4, 6), (0, 50, 1000))
    assert default_grid(PRESENT, cpus=None).instances == (1, 2, 4)  # a GPU
