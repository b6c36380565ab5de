"""What `loadtest` does with a plan: one run, several, or layers side by side; each gives a document and a text."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tao2serve.cli.load_options import Load
from tao2serve.cli.load_text import layers_text, run_text, series_text
from tao2serve.cli.load_told import tell
from tao2serve.documents import json_text
from tao2serve.steps import tell_aftermath

if TYPE_CHECKING:
    from tao2serve.deployment.load_report import Deployed
    from tao2serve.loadtest import Gate, LoadPlan, LoadResult, Workers
    from tao2serve.loadtest.cold_start import ColdStart
    from tao2serve.loadtest.plan import Target
    from tao2serve.loadtest.series import LoadSeries, SeriesRun
    from tao2serve.steps import Step, Steps

__all__ = ["Job"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What to do with a plan, and where to leave what comes of it."""

    load: Load
    gates: Sequence[Gate]
    output: Path
    compare: Path | None
    tolerance_ratio: float
    price_per_hour: float | None
    workers: Workers | None = None
    deployed: Deployed | None = None  # whose ClearML task is told
    triton_grpc: str = ""  # the setting
    cold: ColdStart | None = None  # what was measured before the load
    done: list[SeriesRun] = field(default_factory=list)  # of several, as they end

    def one(self, plan: LoadPlan, steps: Steps) -> tuple[dict[str, Any], str]:
        """Run once; return document and text."""
        from tao2serve.loadtest import evaluate, write_report
        from tao2serve.loadtest.compare import compare_with
        from tao2serve.loadtest.cost import cost_of
        from tao2serve.loadtest.report import run_document
        from tao2serve.loadtest.sweep import forget_series

        with steps.step("load test") as step:
            result = self._run(replace(plan, shape=self.load.loads[0]), self.output, step)
            step.note(f"{result.requests} requests, {result.failures} failures")
        verdicts = evaluate(result, self.gates)
        comparison = (
            compare_with(self.compare, result, tolerance=self.tolerance_ratio) if self.compare is not None else None
        )
        price = self.price_per_hour
        more = self._more(result)

        def write() -> Path:
            return write_report(
                result, verdicts=verdicts, directory=self.output, comparison=comparison, price_per_hour=price, more=more
            )

        with steps.step("write the report") as step:
            forget_series(self.output, keep=self.compare)
            report = write()
            step.note(str(report))
        cost = None if price is None else cost_of(result, price_per_hour=price)
        self._tell(result, more, steps, write)
        told = {**run_document(result, verdicts, report=report, cost=cost, comparison=comparison), **more}
        return told, run_text(result, verdicts, told, comparison=comparison)

    def layers(self, plan: LoadPlan, steps: Steps) -> tuple[dict[str, Any], str]:
        """Run the plan on each of its targets in turns; return document and text."""
        from tao2serve.loadtest.gates import FAILURE_LIMIT
        from tao2serve.loadtest.layers import measure_layers
        from tao2serve.loadtest.plan import make_directory

        make_directory(self.output)
        with steps.step("load test in turns") as step:

            def say(target: Target, block: int) -> None:
                step.news(f"turn {block + 1}: {target.label}")

            costs = measure_layers(
                replace(plan, shape=self.load.loads[0]), plan.targets, on_block=say,
                run=lambda asked: self._run(asked, self.output, step),
            )  # fmt: skip
            step.note(f"{sum(layer.requests for layer in costs.layers)} requests")
        passed = all(
            layer.p50_ms is not None and not layer.saturated and layer.failures <= FAILURE_LIMIT * layer.requests
            for layer in costs.layers
        )
        report = (self.output / "layers.json").resolve()
        told = {**costs.to_dict(), "passed": passed, "report": str(report)}
        report.write_text(json_text(told), encoding="utf-8")
        return told, layers_text(costs)

    def several(self, plan: LoadPlan, steps: Steps) -> tuple[dict[str, Any], str]:
        """Sweep or search; return document and text. Interrupted, it leaves the report of the runs that were made."""
        from tao2serve.loadtest.report import series_cost, series_document, write_series_report
        from tao2serve.loadtest.sweep import forget_series

        forget_series(self.output)
        try:
            series = self._runs(plan, steps)
        except BaseException as error:
            if self.done:
                more = {**self._more(self.done[-1].result), "reported_to": None}
                kept = write_series_report(
                    self._so_far(), directory=self.output, price_per_hour=self.price_per_hour, more=more
                )
                tell_aftermath(error, f"the runs that were made are kept: {kept}")
            raise
        more = self._more(series.runs[series.decisive].result)

        def write() -> Path:
            return write_series_report(series, directory=self.output, price_per_hour=self.price_per_hour, more=more)

        with steps.step("write the report") as step:
            report = write()
            step.note(str(report))
        self._tell(series, more, steps, write)
        told = {**series_document(series, report=report, cost=series_cost(series, self.price_per_hour)), **more}
        return told, series_text(series)

    def _runs(self, plan: LoadPlan, steps: Steps) -> LoadSeries:
        from tao2serve.loadtest.highest import find_max
        from tao2serve.loadtest.sweep import run_sweep

        def run(asked: LoadPlan) -> LoadResult:
            return self._measured(asked, steps)

        search = self.load.search
        if search is None:
            return run_sweep(plan, self.load.loads, self.gates, run=run, on_run=self.done.append)
        return find_max(
            plan, self.gates, run=run, start_rps=search.start_rps, arrivals=search.arrivals,
            within=search.within_ratio, budget_s=search.budget_s, on_run=self.done.append,
        )  # fmt: skip

    def _measured(self, plan: LoadPlan, steps: Steps) -> LoadResult:
        """Run once, and leave the run's own report in a folder of its own."""
        from tao2serve.loadtest import evaluate, passed, write_report
        from tao2serve.loadtest.sweep import load_of, run_name

        with steps.step(f"load test with {load_of(plan.shape)}") as step:
            is_first_look = self.load.search is not None and not plan.is_open
            folder = self.output / run_name(0 if is_first_look else len(self.done) + 1, plan.shape)
            result = self._run(plan, folder, step)
            verdicts = evaluate(result, self.gates)
            write_report(result, verdicts=verdicts, directory=folder)
            outcome = "" if not verdicts else ", reached" if passed(result, verdicts) else ", missed"
            p99 = f", p99 {result.latency_ms.p99:.1f} ms" if result.latency_ms else ""
            step.note(f"{result.throughput_rps:.1f} answers/s{p99}, {result.failures} failures{outcome}")
        return result

    def _so_far(self) -> LoadSeries:
        from tao2serve.loadtest.highest import highest_of
        from tao2serve.loadtest.series import LoadSeries

        searched = self.load.search is not None
        highest = highest_of(self.done, self.gates, ended="The search was interrupted") if searched else None
        return LoadSeries(runs=tuple(self.done), highest=highest, cut_short=True)

    def _run(self, plan: LoadPlan, directory: Path, step: Step) -> LoadResult:
        from tao2serve.loadtest import run_load_test

        result = run_load_test(
            plan,
            directory=directory,
            on_progress=lambda now: step.news(str(now)),
            workers=self.workers,
            triton_grpc=self.triton_grpc,
        )
        known = self.deployed.environment if self.deployed else {}
        return replace(result, environment={**result.environment, **known})

    def _more(self, result: LoadResult) -> dict[str, Any]:
        """Return the members that the run itself does not know, as if ClearML will take it."""
        from tao2serve.loadtest.scenarios import headline

        more: dict[str, Any] = {}
        if self.load.scenario is not None:
            more["scenario"] = headline(self.load.scenario, result)
        if self.cold is not None:
            more["cold_start"] = self.cold.to_dict()
        return {**more, "reported_to": self.deployed.task_id if self.deployed else None}

    def _tell(
        self, load: LoadResult | LoadSeries, more: dict[str, Any], steps: Steps, write: Callable[[], object]
    ) -> None:
        """Report to the deployment's ClearML task; if that does not take it, the report is written anew to say so."""
        deployed = self.deployed
        if deployed is not None and not tell(deployed, load, steps, directory=self.output, gates=self.gates):
            more["reported_to"] = None
            write()
