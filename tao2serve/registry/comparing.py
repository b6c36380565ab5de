"""A comparison of models as a ClearML task of its own: table, plot, page, and links to the models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tao2serve import __version__
from tao2serve.registry.calls import call, text
from tao2serve.registry.session import clearml, translated
from tao2serve.steps import attempt

__all__ = ["report_comparison"]

TITLE = "models compared"


def report_comparison(
    *,
    project: str,
    name: str,
    columns: Sequence[str],
    rows: Sequence[tuple[str, Sequence[str]]],
    figure: Any | None,
    models: Mapping[str, str],
    values: Mapping[str, float],
    document: Mapping[str, Any],
    page: Path | None = None,
) -> str:
    """Make a task that shows a comparison, and return its id; `models` are ids by the name that they are shown under.

    The models are input models of the task, which is how ClearML links them. Raises ServiceError if ClearML refuses.
    """
    sdk = clearml()
    with translated(f"comparison {name}", "could not be reported to ClearML"):
        from clearml.backend_interface.util import get_or_create_project

        project_id = str(get_or_create_project(sdk.Task._get_default_session(), project))
        made = call(
            "tasks", "create", name=name, type="testing", project=project_id, tags=["tao2serve", "compare"],
            comment=f"Models compared by tao2serve {__version__}",
        )  # fmt: skip
        task = sdk.Task.get_task(task_id=text(made, "id"))
        if not task.output_uri:
            task.output_uri = True  # the files server that clearml.conf names
        task.mark_started()
        try:
            for shown, model_id in models.items():
                call("tasks", "add_or_update_model", task=str(task.id), model=model_id, name=shown, type="input")
            task.set_configuration_object(name="comparison", config_dict=dict(document))
            logger = task.get_logger()
            table = [["", *columns], *([label, *cells] for label, cells in rows)]
            logger.report_table(TITLE, "side by side", iteration=0, table_plot=table)
            if figure is not None:
                logger.report_plotly(TITLE, "accuracy over latency", figure, iteration=0)
            for label, value in values.items():
                logger.report_single_value(label, value)
            if page is not None:
                # Without storage that others can read the task has the table and the plot all the same.
                attempt(lambda: task.upload_artifact("compare.html", artifact_object=page, wait_on_upload=True))
            task.flush(wait_for_uploads=True)
            task.mark_completed()
        except BaseException as error:
            said = f"{type(error).__name__}: {error}"[:1000]
            attempt(lambda: task.mark_failed(status_reason="error", status_message=said, force=True))
            raise
    return str(task.id)
