"""Load tests of an endpoint that takes images, by locust, with a verdict and a report.

    target = Target(url="http://127.0.0.1:8080/serve/people/4")
    plan = LoadPlan(targets=(target,), images=Path("images"), shape=ClosedLoop(users=4))
    result = run_load_test(plan)
    verdicts = evaluate(result, [parse_gate("p99=50ms")])
    report = write_report(result, verdicts=verdicts, directory=Path("load"))

Importing this package imports neither locust (it runs as a process of its own) nor plotly.
"""

from tao2serve.loadtest.figures import figures
from tao2serve.loadtest.gates import Gate, Verdict, document, evaluate, parse_gate, passed
from tao2serve.loadtest.plan import ClosedLoop, LoadPlan, LoadProgress, OpenLoop, Target, Workers, images_within
from tao2serve.loadtest.report import write_report
from tao2serve.loadtest.result import LoadResult
from tao2serve.loadtest.runner import run_load_test
from tao2serve.loadtest.worker import run_worker

__all__ = [
    "ClosedLoop",
    "Gate",
    "LoadPlan",
    "LoadProgress",
    "LoadResult",
    "OpenLoop",
    "Target",
    "Verdict",
    "Workers",
    "document",
    "evaluate",
    "figures",
    "images_within",
    "parse_gate",
    "passed",
    "run_load_test",
    "run_worker",
    "write_report",
]
