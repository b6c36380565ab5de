"""What benchmarks say about a command and an environment."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import export_vs_tensorflow
import measurement
import pytest
from measurement import CommandFailedError, Cost, installed_bytes, measure, package_versions

from tao2serve.tao.spec import read_spec

MEASURES = """
import sys
from pathlib import Path
from measurement import measure
for program in sys.argv[2:]:
    cost = measure([sys.executable, "-c", program], folder=Path(sys.argv[1]))
    print(cost.peak_bytes, cost.wall_s, cost.cpu_s)
"""


def test_a_childs_peak_memory_is_its_own(tmp_path: Path) -> None:
    """Memory that a child touched counts, although it let it go again before its end.

    Measured by a process that is small itself, as a benchmark is: a child's peak is no smaller than its parent.
    """
    held = 400 << 20
    done = subprocess.run(
        [sys.executable, "-c", MEASURES, str(tmp_path), "pass", f"x = b'1' * {held}; del x"],
        env={**os.environ, "PYTHONPATH": str(Path(measurement.__file__).parent)},
        check=True,
        capture_output=True,
        text=True,
    )
    small, large = (tuple(float(word) for word in line.split()) for line in done.stdout.splitlines())
    assert large[0] >= held
    assert small[0] < held / 4
    assert min(large) > 0


def test_a_command_that_fails_is_not_measured(tmp_path: Path) -> None:
    """A failure raises with what the command wrote, so that a crash is never taken for a fast run."""
    with pytest.raises(CommandFailedError, match="ended with 3:\nthe reason"):
        measure([sys.executable, "-c", "import sys; print('the reason'); sys.exit(3)"], folder=tmp_path)


def test_a_measured_command_imports_from_its_own_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """PYTHONPATH stays behind, the folder and the given variables arrive."""
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    check = "import os; assert 'PYTHONPATH' not in os.environ; open(os.environ['NAME'], 'w').close()"
    measure([sys.executable, "-c", check], folder=tmp_path, environment={"NAME": "written"})
    assert (tmp_path / "written").exists()


def test_installed_bytes_counts_each_file_once(tmp_path: Path) -> None:
    """Files in folders count, compiled ones too; links do not."""
    (tmp_path / "package" / "__pycache__").mkdir(parents=True)
    (tmp_path / "package" / "a.py").write_bytes(b"1" * 1000)
    (tmp_path / "package" / "__pycache__" / "a.pyc").write_bytes(b"1" * 10)
    (tmp_path / "again").symlink_to(tmp_path / "package" / "a.py")
    assert installed_bytes(tmp_path) == 1010


def test_versions_are_those_beside_the_interpreter() -> None:
    """The versions that a result names are asked of the environment that ran."""
    assert "pytest" in package_versions(Path(sys.executable))


def test_the_specs_classes_and_size_fit_the_networks(tmp_path: Path) -> None:
    """`tao2serve export` accepts the spec that the benchmark writes."""
    path = tmp_path / "spec.txt"
    path.write_text(export_vs_tensorflow.spec_text())
    spec = read_spec(path)
    assert len(spec.classes) == 3
    assert (spec.input.channels, spec.input.height, spec.input.width) == (3, 544, 960)


def test_ratios_are_of_medians_and_name_ours_as_one() -> None:
    """One slow round moves the range, not the ratio."""
    ours = [Cost(wall_s=wall, cpu_s=1.0, peak_bytes=100_000_000) for wall in (1.0, 1.0, 9.0)]
    rival = [Cost(wall_s=wall, cpu_s=5.0, peak_bytes=400_000_000) for wall in (12.0, 12.0, 13.0)]
    result = {
        "sides": {
            "ours": export_vs_tensorflow.summary(ours),
            "tensorflow": export_vs_tensorflow.summary(rival),
        },
        "installed_bytes": {"tao2serve": 100_000_000, "tensorflow": 250_000_000},
    }
    shown = export_vs_tensorflow.table(result)
    assert "| ours | 1.00 s (1.00–9.00) | 1.0 | 1.0 s | 100 MB | 1.0 |" in shown
    assert "| tensorflow | 12.00 s (12.00–13.00) | 12.0 | 5.0 s | 400 MB | 4.0 |" in shown
    assert "| tensorflow | 250 MB | 2.5 |" in shown
