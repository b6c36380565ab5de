"""What a tuning leaves in its folder: the settings, all measurements, and a page that shows both."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Final

from tao2serve import __version__
from tao2serve.deployment.load_report import Deployed as Deployment
from tao2serve.deployment.load_report import report_tuning
from tao2serve.documents import json_text
from tao2serve.errors import UsageError
from tao2serve.loadtest.page_facts import SERVED_BY
from tao2serve.loadtest.rendering import rendered, replace_file
from tao2serve.tuned import Tuned, render_tuned
from tao2serve.tuning import page
from tao2serve.tuning.figures import NOTES, tuning_figures
from tao2serve.tuning.outcome import Outcome
from tao2serve.tuning.skipped import not_measured

__all__ = ["DOCUMENT", "PAGE", "TUNED_FILE", "figures_of", "report_to", "write_outcome"]

TUNED_FILE: Final = "tuned.toml"
DOCUMENT: Final = "tuning.json"
PAGE: Final = "tuning.html"
_SHOWN: Final = 40
_FACTS: Final = {
    "gpu": "GPU",
    "cpu_model": "CPU that serves",
    "cpu_count": "CPUs that serve",
    **SERVED_BY,
}


def write_outcome(outcome: Outcome) -> Outcome:
    """Write the files, each as a whole, and return the outcome with their paths.

    A proposal of an earlier run does not stay beside the word that nothing holds. Raises UsageError if the folder
    cannot be written to, ToolError if plotly is not installed.
    """
    folder = outcome.request.directory.resolve()
    path = folder / TUNED_FILE
    outcome = replace(outcome, report=folder / PAGE, tuned=path if outcome.tuning.proposed is not None else None)
    try:
        if outcome.tuning.proposed is None:
            path.unlink(missing_ok=True)
        else:
            replace_file(path, _settings(outcome))
        replace_file(folder / PAGE, _page(outcome))
        replace_file(folder / DOCUMENT, json_text(outcome.to_dict()))
    except OSError as error:
        raise UsageError(str(folder), "cannot be written to", evidence=str(error), hint="choose another") from error
    return outcome


def figures_of(outcome: Outcome) -> list[Any]:
    """Return the figures of the page, as ClearML takes them too."""
    limits = outcome.request.limits
    return tuning_figures(outcome.tuning, gates=limits.gates, memory_bytes=limits.memory_bytes)


def report_to(deployed: Deployment, outcome: Outcome) -> None:
    """Report a tuning to the task of its deployment: figures, numbers, and the files that `write_outcome` wrote.

    Raises ServiceError if ClearML does not take them.
    """
    folder = outcome.request.directory
    files = [folder / name for name in (PAGE, DOCUMENT, TUNED_FILE) if (folder / name).is_file()]
    report_tuning(
        deployed, figures_of(outcome), page.headline(outcome.tuning), files=files,
        series=f"{outcome.at:%Y-%m-%d %H:%M:%S}",
    )  # fmt: skip


def _settings(outcome: Outcome) -> str:
    assert outcome.tuning.proposed is not None
    artifact = outcome.deployed.artifact
    tuned = Tuned(
        settings=outcome.tuning.proposed.settings(), source_sha256=artifact.source_sha256,
        precision=artifact.precision, model_sha256=artifact.sha256, hardware=outcome.hardware,
    )  # fmt: skip
    return render_tuned(tuned, comment=_basis(outcome))


def _page(outcome: Outcome) -> str:
    tuning, drawn = outcome.tuning, figures_of(outcome)
    unmeasured = not_measured(outcome.grid, tuning)
    more = f"; and {len(unmeasured) - _SHOWN} more" if len(unmeasured) > _SHOWN else ""
    return rendered(
        "tuning.html.j2",
        drawn,
        package="tao2serve.tuning",
        name=f"Tuning of {outcome.name}",
        lead=_lead(outcome),
        how=_how(outcome),
        badge=page.badge(tuning),
        banners=page.banners(tuning),
        cards=page.cards(tuning),
        reason=tuning.reason,
        changes=page.changes(tuning),
        rule=page.rule(tuning),
        use=f"tao2serve deploy … --endpoint {outcome.deployed.endpoint.name} --tuned {TUNED_FILE}"
        if outcome.tuned
        else "",
        notes=NOTES,
        tables=page.tables(tuning),
        skipped=outcome.skipped,
        unmeasured="; ".join(map(str, unmeasured[:_SHOWN])) + more,
        served=_served(outcome),
        generator=list(outcome.generator.items()),
    )


def _lead(outcome: Outcome) -> str:
    plan, artifact = outcome.request.plan, outcome.deployed.artifact
    sought = "the highest throughput" if outcome.tuning.objective == "throughput" else "the lowest p99"
    return (
        f"{outcome.at:%Y-%m-%d %H:%M:%S} UTC · sought: {sought} at {plan.shape} · "
        f"{artifact.precision} {artifact.format.replace('_', ' ')}"
    )


def _how(outcome: Outcome) -> str:
    plan, limits = outcome.request.plan, _limits(outcome)
    again = f", {outcome.reused} of them measured by an earlier run" if outcome.reused else ""
    return (
        f"blocks of {plan.run_time_s:g} s after {plan.warmup_s:g} s warm-up, {outcome.request.blocks} in turns in the "
        f"finals{again} · limits: {', '.join(limits) or 'none'}"
    )


def _limits(outcome: Outcome) -> list[str]:
    limits = outcome.request.limits
    found = [gate.text for gate in limits.gates]
    if limits.memory_bytes:
        found.append(f"memory of Triton {limits.memory_bytes / 2**20:.0f} MiB")
    if limits.gpu_memory_bytes:
        found.append(f"GPU memory {limits.gpu_memory_bytes / 2**20:.0f} MiB")
    return found


def _served(outcome: Outcome) -> list[tuple[str, str]]:
    artifact, known = outcome.deployed.artifact, {**outcome.serving, **outcome.hardware}
    facts = [
        ("Endpoint", outcome.name),
        ("Precision", artifact.precision),
        ("Network", f"{artifact.format.replace('_', ' ')}, SHA-256 {artifact.sha256[:12]}…"),
        *((name, known[key]) for key, name in _FACTS.items() if known.get(key)),
    ]
    return facts + ([("Reported to", f"ClearML task {outcome.reported_to}")] if outcome.reported_to else [])


def _basis(outcome: Outcome) -> list[str]:
    """Say in a few lines what the settings rest on."""
    endpoint, tuning, request = outcome.deployed.endpoint, outcome.tuning, outcome.request
    lines = [
        f"Settings proposed by tao2serve {__version__} for {endpoint.name}/{endpoint.version}.",
        f"Use them: tao2serve deploy … --endpoint {endpoint.name} --tuned FILE",
        "",
        tuning.reason,
        f"Load: {request.plan.shape}, {request.plan.run_time_s:g} s a block, {request.blocks} blocks in the finals;",
        f"limits: {', '.join(_limits(outcome)) or 'none'}",
        f"{len(tuning.survey)} of {tuning.of_grid} candidates measured"
        + ("." if tuning.is_whole else " by a local search, which may miss a better one."),
    ]
    for finalist in tuning.finals:
        row = finalist.to_dict()
        p99 = f"{row['p99_ms']:.1f} ms" if row["p99_ms"] is not None else "-"
        lines.append(
            f"  {finalist.candidate}: {row['throughput_rps']:.1f} answers/s, p99 {p99}"
            + ("" if finalist.holds else "; does not hold")
        )
    return lines
