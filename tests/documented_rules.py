"""How the documents' commands are run: what stands for what, and which are not run here, each with the reason.

A command without a rule is run as it stands. `$NAME` in a rule is a variable that test_docs_commands.py sets.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from documented import README, TABLE

AGENT: Final = "an agent's environment takes minutes to make; the agent's own test has one"
# Programs that are not here, or must not run in a test, wherever they are shown; the first words of a command.
ELSEWHERE: Final = (
    (r"(sudo )?apt-get ", "changes the machine; .ci/run installs the same packages"),
    (r"(python3 -m venv|pip (install|wheel)) ", "installs what tox does; test_readme.py knows the extras"),
    (r"docker ", "no container engine here; the rendered files are tested by test_rendered_project.py"),
    (r"kubectl ", "no cluster here; the manifests are held to Kubernetes' schemas in tests/unit/render"),
    (r"(tao|\S+/tao) ", "NVIDIA's container cannot run here; the launcher's command lines: test_tao_launcher.py"),
    (r"tao2serve tao (?!.*--dry-run)", "the same, by way of tao2serve; its parser reads the words"),
    (r"clearml-agent |tao2serve .*--(agent|queue)\b", AGENT),
    (r"(pytest|tox)\b", "these tests themselves"),
    (r"python benchmarks/", "takes minutes; its own parser reads the words, and tests/unit/benchmarks runs its parts"),
)  # fmt: skip
TRAINING: Final = "takes up to 17 minutes; its own parser reads the words"
# Programs that a user has and a bare machine may not; where CI is set they have to be there.
OPTIONAL: Final = ("curl", "openssl", "promtool")


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """Of one page. Keys are commands as `Shown.command` has them; a page that is not there yet may have rules."""

    fixtures: tuple[str, ...] = ("reader", "reader_endpoint")  # the first gives the environment
    before: tuple[str, ...] = ()  # what the page takes for done
    stands_for: Mapping[str, str] = field(default_factory=dict)  # a placeholder, or a fixed address → what is run
    not_run: Mapping[str, str] = field(default_factory=dict)  # command → why
    until: Mapping[str, str] = field(default_factory=dict)  # a command that stays → shell test that says it is ready
    exits: Mapping[str, tuple[int, ...]] = field(default_factory=dict)  # other codes that the page says, here by chance
    variables: Mapping[str, Mapping[str, str]] = field(default_factory=dict)  # what a command needs in its environment


REACHED: Final = "(: </dev/tcp/127.0.0.1/{}) 2>/dev/null"
# Two cores that other tests use as well may miss the example's limit; the page says that a missed gate exits 8.
LOAD: Final = "tao2serve loadtest street --images pictures --users 4 --run-time 5s --slo p99=250ms"
PIPELINE: Final = (
    "tao2serve pipeline --project street-detector --endpoint street --gate-images pictures --slo p99=250ms"
)
WATCH: Final = (
    "tao2serve watch --project street-detector --tag ready --endpoint street --gate-images pictures --slo p99=250ms"
)
STAYS: Final = {WATCH: "watches until it is ended; tests/integration/test_pipeline.py has it find a model"}
EXPORT: Final = "tao2serve export weights/model.hdf5 --spec experiment_spec.txt -o onnx"
GPU: Final = "no GPU and no TensorRT here; tests/gpu has them, and the parser reads the words"
MADE: Final = "README.md runs it; one more serving service is enough"
ADDRESSES: Final = {
    "CLEARML_API_HOST": "https://api.clear.ml",
    "CLEARML_WEB_HOST": "https://app.clear.ml",
    "CLEARML_FILES_HOST": "https://files.clear.ml",
}

RULES: Final[Mapping[str, Rules]] = {
    README: Rules(
        stands_for={
            "HOST:8080": "$SERVING",
            "HOST:8001": "$TRITON_GRPC",
            "MODEL_ID": "$UNPRUNED",
            "SERVICE_ID": "$(grep -o 'id=[0-9a-f]*' $LAST | cut -c4-)",
            "=DIR": "=$TAO2SERVE_MODEL_REPOSITORY",
        },
        not_run={
            "tritonserver --model-repository=DIR --model-control-mode=explicit": (
                "NVIDIA's containers have it; model_repo/README.md runs the wheel's binary with these options"
            ),
        },
    ),
    TABLE: Rules(
        # Something for `rollback` to go back from, if the page above has not run.
        before=("tao2serve deploy MODEL_ID --endpoint street --image street.jpg --canary 10",),
        stands_for={"SERVICE_ID": "$CLEARML_SERVING_TASK_ID", "MODEL_ID": "$UNPRUNED"},
        not_run={
            "tao2serve demo --output demo": "tests/integration/test_demo.py runs it",
            "tao2serve sandbox down --purge": "would end the sandbox of all tests; tests/integration/test_sandbox.py",
            **STAYS,
        },
        exits={LOAD: (0, 8), PIPELINE: (0, 8)},
        variables={"tao2serve render kubernetes -o kubernetes --gpus 1": ADDRESSES},
    ),
    "model_repo/README.md": Rules(
        stands_for={"--http-address=127.0.0.1": "--http-port=$PORT --grpc-port=$PORT2 --metrics-port=$PORT3 "
                    "--http-address=127.0.0.1"},
        not_run={
            "tritonserver --model-repository=model_repo --model-control-mode=explicit --load-model=street"
            " --load-model=street_pictures": "NVIDIA's containers have it; the next block runs the wheel's binary",
            "python model_repo/regenerate.py": "would write into the clone; tests/unit/test_model_repo.py",
        },
        until={'"$TRITON/bin/tritonserver"': REACHED.format("$PORT")},
    ),
    "benchmarks/README.md": Rules(
        fixtures=("reader",),
        stands_for={
            "locust -f": "locust --web-host 127.0.0.1 --web-port $PORT -f",
            "--images DIR": "--images pictures",
        },
        until={"locust -f": REACHED.format("$PORT")},
    ),
    "examples/README.md": Rules(
        stands_for={"HOST:8080": "$SERVING"},
        not_run={
            "jupyter lab examples/detectnet_v2_to_endpoint.ipynb": "a server with a browser; test_docs_examples.py",
            "python CLONE/tests/run_notebook.py CLONE/examples/detectnet_v2_to_endpoint.ipynb"
            " CLONE/examples/detectnet_v2_to_endpoint.ipynb": "test_docs_examples.py runs it, into another file",
        },
    ),
    "examples/train_sample/README.md": Rules(
        fixtures=("reader",),
        not_run={
            "python run.py scenes --work WORK": TRAINING,
            "python run.py train --work WORK": TRAINING,
            "python run.py retrain --work WORK": TRAINING,
            "python package.py --work WORK --output ../../tao2serve/sandbox/sample": TRAINING,
            "python measure.py --sample ../../tao2serve/sandbox/sample": TRAINING,
        },
    ),
    "docs/agent.md": Rules(not_run={"tao2serve sandbox logs clearml-agent": AGENT}),
    "docs/clearml-sandbox.md": Rules(
        fixtures=("reader",),
        until={"python -m tao2serve.sandbox.clearml_server": "test -s state/address.json"},
    ),
    "docs/compare.md": Rules(before=(EXPORT,), stands_for={"3af7a59036e3447499297a5490aa3993": "$UNPRUNED"}),
    "docs/export.md": Rules(fixtures=("reader",)),
    "docs/gpu-server.md": Rules(
        fixtures=("reader",),
        stands_for={"SERVICE_ID": "$CLEARML_SERVING_TASK_ID"},
        not_run={
            "clearml-serving create --name detectors": MADE,
            "cp ../street.jpg input/": "of use to the containers alone",
            'curl --data-binary @../street.jpg -H "Authorization: Bearer $KEY"'
            " https://detect.example.org:8443/serve/street": "for the container's proxy; test_proxy.py asks one",
            "tao2serve export weights/model.hdf5 --spec experiment_spec.txt -o plan --precision fp16 --engine": GPU,
            "tao2serve inspect plan/model.plan": GPU,
            "tao2serve verify weights/model.hdf5 plan/model.plan --images pictures": GPU,
            "cp plan/model.plan plan/model.plan.json experiment_spec.txt server/input/": GPU,
        },
    ),
    "docs/kubernetes.md": Rules(
        fixtures=("reader",),
        stands_for={"SERVICE_ID": "$CLEARML_SERVING_TASK_ID"},
        not_run={"clearml-serving create --name detectors": MADE},
    ),
    "docs/loadtest.md": Rules(
        not_run={
            "tao2serve loadtest street --images pictures --rate 500 --master 0.0.0.0:5557 --workers 4": (
                "needs other machines; tests/integration/test_loadtest_honesty.py has workers on this one"
            ),
            "tao2serve loadtest --worker LEADER:5557 --processes 2": "the same",
        },
        exits={LOAD: (0, 8)},
    ),
    "docs/managed.md": Rules(fixtures=("managed_sandbox", "managed")),
    "docs/pipeline.md": Rules(not_run=STAYS, exits={PIPELINE: (0, 8)}),
    "docs/serve.md": Rules(stands_for={"HOST:8080": "$SERVING"}),
    "docs/tuning.md": Rules(
        not_run={
            "tao2serve loadtest street --images pictures --users 4 --run-time 20s --tune --slo p99=250ms"
            " --memory-limit 2GiB -o tune": "takes ten minutes; tests/integration/test_tune.py has runs of a second",
            "tao2serve deploy --project street-detector --endpoint street --image street.jpg --tuned tune/tuned.toml": (
                "needs what the tuning writes; test_tune.py deploys that"
            ),
        },
    ),
    "docs/verify.md": Rules(before=(EXPORT,)),
    "docs/watch.md": Rules(
        stands_for={"127.0.0.1:9464": "$ENDPOINT_METRICS"},
        not_run={
            "TAO2SERVE_METRICS_PORT=9464 uvicorn clearml_serving.serving.main:app --port 8080 --workers 2": (
                "the sandbox runs this program with that variable; test_watch.py has two workers"
            ),
            "prometheus --config.file=ops/prometheus.yml --web.listen-address=127.0.0.1:9090": (
                "test_watch.py runs it with the rules of ops/ and the sandbox's ports"
            ),
        },
    ),
}  # fmt: skip


def rules_of(page: str) -> Rules:
    return RULES.get(page, Rules())


def why_not_run(page: str, command: str) -> str:
    """The reason a command is not run, or an empty string if it is."""
    for pattern, reason in ELSEWHERE:
        if re.match(pattern, command):
            return reason
    return rules_of(page).not_run.get(command, "")
