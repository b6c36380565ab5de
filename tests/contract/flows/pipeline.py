"""A pipeline of two steps, run here step by step with the real PipelineController. Prints what became of it."""

import json
import sys

from clearml import PipelineController, Task


def first(x: str) -> int:
    """Count one on."""
    return int(x) + 1


def second(y: int) -> int:
    """Double it."""
    return y * 2


if __name__ == "__main__":
    pipeline = PipelineController(
        name="two steps", project=sys.argv[1], version="1.0.0", add_pipeline_tags=True, pool_frequency=0.01
    )
    pipeline.add_parameter("x", 3)
    pipeline.add_function_step(
        name="first", function=first, function_kwargs={"x": "${pipeline.x}"}, function_return=["y"]
    )
    pipeline.add_function_step(
        name="second", function=second, function_kwargs={"y": "${first.y}"}, function_return=["z"], parents=["first"]
    )
    pipeline.start_locally(run_pipeline_steps_locally=True)
    controller = Task.get_task(task_id=pipeline.id)
    steps = {name: Task.get_task(task_id=node.executed) for name, node in pipeline.get_processed_nodes().items()}
    seen = {
        "controller": [str(controller.task_type), "pipeline" in controller.get_system_tags()],
        "steps": {name: [str(step.get_status()), step.parent == pipeline.id] for name, step in steps.items()},
        "result": steps["second"].get_parameters()["return/z"],
    }
    print(json.dumps(seen))
