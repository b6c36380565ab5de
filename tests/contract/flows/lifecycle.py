"""Clones, queues, publishes, archives and deletes with the real SDK. Prints the states it saw."""

from __future__ import annotations

import json
import sys

from clearml import Model, Task

project, task_id, model_id = sys.argv[1:4]
seen = {}
source = Task.get_task(task_id=task_id)
clone = Task.clone(source, name="cloned")
seen["clone"] = [str(clone.status), clone.get_parameters() == source.get_parameters(), clone.parent == task_id]
Task.enqueue(clone, queue_name="default")
seen["queued"] = str(clone.get_status())
Task.dequeue(clone)
seen["dequeued"] = str(clone.get_status())
clone.mark_started()
clone.mark_stopped()
seen["stopped"] = str(clone.get_status())
clone.mark_completed()
clone.publish()
seen["published"] = str(clone.get_status())
source.set_archived(True)
seen["archived"] = "archived" in source.get_system_tags()
source.set_archived(False)
Model(model_id).archive()
seen["listed_after_archive"] = [model.id == model_id for model in Model.query_models(project, "detector")]
Model(model_id).unarchive()
seen["listed_after_unarchive"] = [model.id == model_id for model in Model.query_models(project, "detector")]
seen["removed"] = bool(Model.remove(model_id, force=True))
seen["deleted"] = [bool(clone.delete()), bool(source.delete())]
seen["gone"] = Task.get_task(project_name=project, task_name="train one") is None
print(json.dumps(seen))
