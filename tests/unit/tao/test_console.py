"""What TAO prints becomes evaluations."""

from __future__ import annotations

import time

import pytest

from tao2serve.tao.console import read_console

# As users published it: TAO 5.0, a progress bar before the head, the logger behind the table.
TAO_5 = """\
2024-08-14 04:20:01,000 [TAO Toolkit] [INFO] nvidia_tao_tf1.cv.detectnet_v2.tfhooks.task_progress_monitor_hook 149: \
Epoch 119/120: loss: 0.00101 learning rate: 5.0e-07 Time taken: 0:01:02 ETA: 0:01:02
INFO:tensorflow:epoch = 119.5, learning_rate = 5e-07, loss = 0.001, step = 23900 (5.164 sec)
Matching predictions to ground truth, class 2/2.: 100%|████| 4835/4835 [00:00<00:00, 29413.46it/s]Epoch 120/120
=========================

Validation cost: 0.003051
Mean average_precision (in %): 40.3805

+------------+--------------------------+
| class name | average precision (in %) |
+------------+--------------------------+
|   person   |    40.38046396159004     |
| road sign  |           0.0            |
+------------+--------------------------+

Median Inference Time: 0.000794
2024-08-14 04:30:31,803 [TAO Toolkit] [INFO] root 2102: Evaluation metrics generated.
"""
TAO_3 = """\
Epoch 10/80
=========================

Validation cost: 0.000262
Mean average_precision (in %): 76.5375

class name      average precision (in %)
------------  --------------------------
car                              81.4546
road sign                        80.0
pedestrian                       67.8713

Median Inference Time: 0.005755
"""


def test_tao_5_prints_a_pretty_table() -> None:
    """Epoch, mean and classes are ratios at the epochs that were finished; a class's name may hold a space."""
    (evaluation,) = read_console(TAO_5)
    assert (evaluation.epoch, evaluation.epochs) == (120, 120)
    assert evaluation.mean_average_precision == pytest.approx(0.403805)
    assert evaluation.average_precision == {"person": pytest.approx(0.4038046396159004), "road sign": 0.0}


def test_older_tao_prints_a_simple_table() -> None:
    """The table without bars is read too, and ends where it ends."""
    (evaluation,) = read_console(TAO_3)
    assert evaluation.epoch == 10
    assert evaluation.average_precision == pytest.approx({"car": 0.814546, "road sign": 0.8, "pedestrian": 0.678713})


def test_early_stopping_prints_no_head() -> None:
    """Without `Epoch N/M` alone on a line, the epoch is the one begun last, counted from 0, and then finished."""
    text = TAO_5.replace("Epoch 120/120\n", "\n")
    assert [(x.epoch, x.epochs) for x in read_console(text)] == [(120, 120)]
    assert [x.epoch for x in read_console("Mean average_precision (in %): 40.0")] == [None]


def test_a_head_belongs_to_one_evaluation() -> None:
    """A second mean under the same head, and one far below it, are of no known epoch."""
    head = "Epoch 4/8\n=====\nMean average_precision (in %): 40.0\n"
    assert [x.epoch for x in read_console(head + "Mean average_precision (in %): 50.0")] == [4, None]
    assert [x.epoch for x in read_console("Epoch 4/8\n" + "noise\n" * 50 + "Mean average_precision (in %): 50.0")] == [
        None
    ]


def test_what_is_printed_in_colour_with_returns_and_odd_bytes() -> None:
    """Escape sequences, carriage returns, NUL and line separators do not hide an evaluation."""
    text = (
        "\x1b[31mbar 10%\r\x00 99%\rEpoch 2/4\x1b[0m\r\n=====\r\n\r\nMean average_precision (in %): 12.5\r\n\u2028|\x00"
    )
    assert [(x.epoch, x.mean_average_precision) for x in read_console(text)] == [(2, 0.125)]


@pytest.mark.parametrize("value", ["nan", "inf", "-1", "470.0", "x", "1e999"])
def test_what_is_no_percentage_is_no_number(value: str) -> None:
    """The evaluation is there, and has no number."""
    (evaluation,) = read_console(f"Epoch 2/4\nMean average_precision (in %): {value}\n")
    assert evaluation.mean_average_precision is None


def test_what_only_looks_like_a_table_is_passed_over_quickly() -> None:
    """Rows that almost match cost no more than others: 900 of the worst took 4 s before they had a limit."""
    head = "Epoch 2/4\nMean average_precision (in %): 50.0\n| class name | average precision (in %) |\n"
    started = time.monotonic()
    (evaluation,) = read_console(head + ("|" + " " * 1990 + "x\n") * 900 + ("|" + " " * 290 + "x\n") * 900)
    assert evaluation.average_precision == {}
    assert time.monotonic() - started < 2


def test_lines_without_end_are_cut() -> None:
    """A line of millions of characters costs no more than its end."""
    (evaluation,) = read_console(
        "| " * 2_000_000 + "Epoch 2/4\nMean average_precision (in %): 50.0\n" + "|" * 2_000_000
    )
    assert evaluation.mean_average_precision == 0.5
