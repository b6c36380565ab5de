"""What `render` writes: valid by the schemas, closed to the outside, the same each time, and without secrets."""

from __future__ import annotations

import importlib.metadata
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import compose_spec
import kubernetes_validate
import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tao2serve.errors import UsageError
from tao2serve.render.compose import compose_files
from tao2serve.render.files import RenderedFile, write_files
from tao2serve.render.images import (
    DEPLOYER_EXTRAS,
    DEPLOYER_PACKAGES,
    INFERENCE_PACKAGES,
    RELEASES,
    TRITON_PACKAGES,
    release_of,
    release_with_tensorrt,
)
from tao2serve.render.kubernetes import MANIFESTS, kubernetes_files
from tao2serve.render.request import (
    METRICS_ENVIRONMENT,
    METRICS_PORT,
    ClearMLAddresses,
    RenderRequest,
    default_body,
)
from tao2serve.runtime import exporter

CLEARML = ClearMLAddresses(
    api="https://api.clearml.example:8008",
    web="https://app.clearml.example",
    files="https://files.clearml.example",
    service="0123456789abcdef0123456789abcdef",
)
PLAIN = RenderRequest(
    release=release_of("25.01"), version="0.1.0", clearml=CLEARML, max_body_bytes=1_000_000, deadline_s=10.0
)
FULL = replace(
    PLAIN,
    triton_image="registry.example:5000/team/triton:1.0@sha256:" + "0" * 64,
    image_prefix="registry.example:5000/team/detect",
    gpus=2,
    replicas=3,
    workers=4,
    host="detect.example.org",
    secrets="/srv/detect/secrets",
    tls_certificate="/etc/tls/full.pem",
    tls_key="/etc/tls/key.pem",
    namespace="123",  # YAML would read it as a number
    storage_class="nfs-client",
    autoscale_to=9,
    metrics_from="monitoring",
    service_type="LoadBalancer",
)
REQUESTS = pytest.mark.parametrize("request_", [PLAIN, FULL], ids=["plain", "full"])


def texts(files: tuple[RenderedFile, ...]) -> dict[str, str]:
    return {file.name: file.text for file in files}


def interpolated(value: Any) -> Any:
    """Put 1 for each ${VARIABLE:?…}, as Compose puts the values of .env."""
    if isinstance(value, dict):
        return {name: interpolated(member) for name, member in value.items()}
    if isinstance(value, list):
        return [interpolated(member) for member in value]
    return re.sub(r"\$\{[A-Z0-9_]+:\?[^}]*\}", "1", value) if isinstance(value, str) else value


def project(request: RenderRequest) -> dict[str, Any]:
    document = interpolated(yaml.safe_load(texts(compose_files(request))["compose.yaml"]))
    assert isinstance(document, dict)
    return document


def manifests(request: RenderRequest) -> list[dict[str, Any]]:
    files = texts(kubernetes_files(request))
    return [document for name in MANIFESTS for document in yaml.safe_load_all(files[f"{name}.yaml"])]


def one(documents: list[dict[str, Any]], kind: str, name: str) -> dict[str, Any]:
    (found,) = (each for each in documents if each["kind"] == kind and each["metadata"]["name"] == name)
    return found


@REQUESTS
def test_compose_file_is_valid(request_: RenderRequest) -> None:
    """A strict parser of the Compose specification takes it: members, forms, and names that are defined."""
    parsed = compose_spec.PyCompose.from_json(json.dumps(project(request_)))
    parsed.validate()
    assert set(parsed.service_names()) == {"triton", "inference", "proxy", "deployer"}


def test_the_compose_parser_can_refuse() -> None:
    """The parser of the test above refuses a member that is none, and a network that nobody defines."""
    for change in ({"read_onyl": True}, {"networks": ["nowhere"]}):
        document = project(PLAIN)
        document["services"]["proxy"].update(change)
        with pytest.raises(ValueError, match=r"read_onyl|nowhere"):
            compose_spec.PyCompose.from_json(json.dumps(document)).validate()


@REQUESTS
def test_compose_opens_the_proxy_alone(request_: RenderRequest) -> None:
    """Only the proxy publishes a port, Triton's network has no way out, and no container is privileged."""
    document = project(request_)
    services = document["services"]
    assert {name for name, service in services.items() if "ports" in service} == {"proxy"}
    assert services["proxy"]["ports"] == [f"{request_.port}:8443"]
    assert services["triton"]["networks"] == ["models"]
    assert document["networks"]["models"]["internal"] is True
    assert services["proxy"]["networks"] == ["front"]
    assert services["deployer"]["profiles"] == ["deploy"]
    for name, service in services.items():
        assert service["user"] == "1:1", name
        assert service["read_only"] is True, name
        assert service["cap_drop"] == ["ALL"], name
        assert "no-new-privileges:true" in service["security_opt"], name
        assert set(service["deploy"]["resources"]["limits"]) == {"cpus", "memory"}, name
        if name != "deployer":
            assert "healthcheck" in service, name
            assert "stop_grace_period" in service, name
    assert services["proxy"]["depends_on"] == {"inference": {"condition": "service_healthy"}}
    assert services["inference"]["depends_on"] == {"triton": {"condition": "service_healthy"}}


def test_gpus_are_asked_for_only_if_wanted() -> None:
    """Without --gpus nothing names a GPU; with it Triton alone gets them, in both forms."""
    assert "reservations" not in project(PLAIN)["services"]["triton"]["deploy"]["resources"]
    (device,) = project(FULL)["services"]["triton"]["deploy"]["resources"]["reservations"]["devices"]
    assert device == {"driver": "nvidia", "count": 2, "capabilities": ["gpu"]}
    assert "nvidia" not in json.dumps(manifests(PLAIN))
    (container,) = one(manifests(FULL), "Deployment", "triton")["spec"]["template"]["spec"]["containers"]
    assert container["resources"]["limits"]["nvidia.com/gpu"] == "2"
    assert one(manifests(FULL), "Deployment", "triton")["spec"]["strategy"] == {"type": "Recreate"}


@REQUESTS
@pytest.mark.parametrize("version", ["1.27", kubernetes_validate.latest_version()])
def test_manifests_are_valid(request_: RenderRequest, version: str) -> None:
    """Each manifest fits the schema of its kind, strictly, from Kubernetes 1.27 to the newest that is known."""
    for document in manifests(request_):
        kubernetes_validate.validate(document, version, strict=True)


def test_the_schemas_can_refuse() -> None:
    """The validation of the test above refuses a member that is none."""
    document = one(manifests(PLAIN), "Deployment", "proxy")
    document["spec"]["template"]["spec"]["containers"][0]["readinessProbes"] = {}
    with pytest.raises(kubernetes_validate.ValidationError, match="readinessProbes"):
        kubernetes_validate.validate(document, "1.30", strict=True)


@REQUESTS
def test_pods_are_restricted_and_limited(request_: RenderRequest) -> None:
    """Each pod keeps the restricted profile, has limits, probes and a grace period, and gets secrets by reference."""
    documents = manifests(request_)
    assert {document["metadata"]["namespace"] for document in documents if document["kind"] != "Namespace"} == {
        request_.namespace
    }
    for document in (each for each in documents if each["kind"] == "Deployment"):
        name, pod = document["metadata"]["name"], document["spec"]["template"]["spec"]
        assert pod["securityContext"]["runAsNonRoot"] is True, name
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}, name
        assert pod["automountServiceAccountToken"] is False, name
        assert pod["terminationGracePeriodSeconds"] > 0, name
        (container,) = pod["containers"]
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }, name
        assert {"cpu", "memory"} <= set(container["resources"]["limits"]), name
        for variable in container.get("env", ()):
            if "KEY" in variable["name"]:
                assert "secretKeyRef" in variable["valueFrom"], variable
        if name != "deployer":
            assert container["livenessProbe"] != container["readinessProbe"], name
            assert container["startupProbe"]["failureThreshold"] > 1, name


@REQUESTS
def test_triton_is_called_by_inference_and_deployer_alone(request_: RenderRequest) -> None:
    """Everything is closed first; Triton's gRPC opens to two, its metrics to a namespace if one is named, no more."""
    documents = manifests(request_)
    nobody = one(documents, "NetworkPolicy", "nobody")["spec"]
    assert nobody == {"podSelector": {}, "policyTypes": ["Ingress"]}
    triton = one(documents, "NetworkPolicy", "triton")["spec"]
    assert triton["egress"] == []
    control, *metrics = triton["ingress"]
    assert control == {
        "from": [
            {"podSelector": {"matchLabels": {"app": "inference"}}},
            {"podSelector": {"matchLabels": {"app": "deployer"}}},
        ],
        "ports": [{"port": 8001, "protocol": "TCP"}],
    }
    assert [rule["ports"] for rule in metrics] == (
        [[{"port": 8002, "protocol": "TCP"}]] if request_.metrics_from else []
    )
    assert one(documents, "Service", "proxy")["spec"]["type"] == request_.service_type
    for name in ("triton", "inference"):
        assert "type" not in one(documents, "Service", name)["spec"], name
    for document in documents:
        if document["kind"] == "NetworkPolicy" and document["metadata"]["name"] != "nobody":
            app = document["spec"]["podSelector"]["matchLabels"]["app"]
            assert one(documents, "Deployment", app), app


def test_metrics_have_their_place() -> None:
    """Both forms carry the metrics' variables and publish no port; one namespace may read it, if one is named."""
    assert set(METRICS_ENVIRONMENT) == {exporter.PORT, exporter.ADDRESS}
    inference = project(FULL)["services"]["inference"]
    assert METRICS_ENVIRONMENT.items() <= inference["environment"].items()
    assert (inference["expose"], "ports" in inference) == ([str(METRICS_PORT)], False)
    documents = manifests(FULL)
    (container,) = one(documents, "Deployment", "inference")["spec"]["template"]["spec"]["containers"]
    for name, value in METRICS_ENVIRONMENT.items():
        assert {"name": name, "value": value} in container["env"]
    rules = one(documents, "NetworkPolicy", "inference")["spec"]["ingress"]
    assert [rule["ports"][0]["port"] for rule in rules] == [8080, METRICS_PORT]
    (only,) = one(manifests(PLAIN), "NetworkPolicy", "inference")["spec"]["ingress"]
    assert only["ports"] == [{"port": 8080, "protocol": "TCP"}]


def test_kustomization_lists_what_is_there() -> None:
    """`kubectl apply -k` gets every manifest but the deployer, and the proxy's configuration."""
    files = texts(kubernetes_files(PLAIN))
    kustomization = yaml.safe_load(files["kustomization.yaml"])
    assert sorted(kustomization["resources"]) == sorted(f"{name}.yaml" for name in MANIFESTS if name != "deployer")
    assert kustomization["configMapGenerator"] == [{"name": "proxy", "files": ["nginx.conf"]}]
    assert "nginx.conf" in files


def test_every_container_has_its_dockerfile() -> None:
    """The images that are named and not public are those that the Dockerfiles beside them make."""
    for files in (texts(compose_files(FULL)), texts(kubernetes_files(FULL))):
        built = set(re.findall(r"registry\.example:5000/team/detect-(\w+):", "".join(files.values())))
        assert built == {name.partition(".")[0] for name in files if name.endswith(".Dockerfile")}


def test_the_same_request_gives_the_same_bytes() -> None:
    """Rendering depends on nothing but the request."""
    for files in (compose_files, kubernetes_files):
        assert files(FULL) == files(FULL)


def test_nothing_is_left_unfilled() -> None:
    """No file holds a piece of a template, or the text of an absent value."""
    for files in (compose_files(PLAIN), kubernetes_files(FULL)):
        for file in files:
            assert not re.search(r"\{\{|\{%|\bNone\b|\bUndefined\b", file.text), file.name
            assert file.text.endswith("\n"), file.name


HOSTILE = (
    "a\nb: c",
    'a"b',
    "a'b",
    "a;b",
    "a b",
    "a{{b}}",
    "${PATH}",
    "$host",
    "a#b",
    "a\\",
    "-rf",
    "é",
    "a:é",
    "a:٣",
    "a\x00",
    "x" * 500,
)


@pytest.mark.parametrize("value", HOSTILE)
@pytest.mark.parametrize(
    "name",
    [
        "host",
        "namespace",
        "image_prefix",
        "secrets",
        "triton_image",
        "tls_certificate",
        "storage_class",
        "metrics_from",
    ],
)
def test_hostile_names_are_refused(name: str, value: str) -> None:
    """What could end a quotation, a line or a directive never reaches a template."""
    options: dict[str, Any] = {name: value, "tls_key": "key.pem"} if name == "tls_certificate" else {name: value}
    with pytest.raises(UsageError):
        replace(PLAIN, **options)


@pytest.mark.parametrize("minutes", [0.0, -1.0, float("nan"), float("inf"), 1000.0])
def test_poll_is_a_time(minutes: float) -> None:
    """How often ClearML is asked is a number of minutes up to an hour."""
    with pytest.raises(UsageError, match="--poll-minutes"):
        replace(PLAIN, poll_minutes=minutes)


@pytest.mark.parametrize(
    "url", ["ftp://a", "http://user:pw@a", "http://a?x", "http://a b", 'http://a"', "http://", "a"]
)
@pytest.mark.parametrize("member", ["api", "web", "files"])
def test_hostile_urls_are_refused(member: str, url: str) -> None:
    """ClearML's addresses are plain URLs; credentials in one would be written down, and are refused."""
    with pytest.raises(UsageError):
        replace(PLAIN, clearml=replace(CLEARML, **{member: url}))


def test_kubernetes_needs_clearml() -> None:
    """Manifests that would name no ClearML server are not written."""
    with pytest.raises(UsageError, match="ClearML"):
        kubernetes_files(replace(PLAIN, clearml=replace(CLEARML, files="")))


def test_files_that_differ_are_kept(tmp_path: Path) -> None:
    """Nothing is overwritten unless --force is given, and the refusal names what differs and writes nothing."""
    files = compose_files(PLAIN)
    assert {file.state for file in write_files(files, tmp_path)} == {"written"}
    assert {file.state for file in write_files(files, tmp_path)} == {"unchanged"}
    (tmp_path / "proxy" / "nginx.conf").write_text("mine", encoding="utf-8")
    (tmp_path / "README.md").unlink()
    (tmp_path / "own.txt").write_text("mine", encoding="utf-8")
    with pytest.raises(UsageError) as refused:
        write_files(files, tmp_path)
    assert refused.value.evidence == "proxy/nginx.conf"
    assert not (tmp_path / "README.md").exists()
    states = {file.path.name: file.state for file in write_files(files, tmp_path, force=True)}
    assert states.pop("nginx.conf") == "replaced"
    assert states.pop("README.md") == "written"
    assert set(states.values()) == {"unchanged"}
    assert (tmp_path / "own.txt").read_text(encoding="utf-8") == "mine"


def test_the_release_is_found_by_its_tensorrt() -> None:
    """A plan's TensorRT names one Triton release, as far as its version goes; an unknown one is refused."""
    for release in RELEASES:
        assert release_with_tensorrt(release.tensorrt) is release
        assert release_with_tensorrt(release.tensorrt + ".43") is release
    assert release_with_tensorrt("10.8").tag == "25.01"
    for unknown in ("8.6.1", "10", "11.0", "x", ""):
        with pytest.raises(UsageError, match=r"--tensorrt"):
            release_with_tensorrt(unknown)


def test_every_package_is_pinned() -> None:
    """Each package names one version, and what clearml-serving imports without declaring it is among them."""
    for package in (*TRITON_PACKAGES, *INFERENCE_PACKAGES, *DEPLOYER_PACKAGES):
        assert re.fullmatch(r"[\w.-]+==[\w.]+", package), package
    names = {package.partition("==")[0] for package in INFERENCE_PACKAGES}
    assert {"fastapi", "uvicorn", "attrs", "numpy", "grpcio", "tritonclient", "requests", "pillow"} <= names
    assert "clearml-serving==1.3.5" in INFERENCE_PACKAGES


def test_the_deployer_has_what_tao2serve_declares() -> None:
    """Each requirement of tao2serve and of the deployer's extras is among its packages, in a version that it takes."""
    pinned = {canonicalize_name(name): version for name, version in (each.split("==") for each in DEPLOYER_PACKAGES)}
    for text in importlib.metadata.requires("tao2serve") or ():
        requirement = Requirement(text)
        for extra in ("", *DEPLOYER_EXTRAS):
            if requirement.marker is None or requirement.marker.evaluate({"extra": extra}):
                name = canonicalize_name(requirement.name)
                assert name in pinned, text
                assert requirement.specifier.contains(pinned[name]), text
    assert {"boto3", "google-cloud-storage", "azure-storage-blob", "locust"} <= set(pinned)
    for files in (texts(compose_files(PLAIN)), texts(kubernetes_files(PLAIN))):
        assert set(DEPLOYER_PACKAGES) <= set(files["deployer-requirements.txt"].splitlines())
        copied = set(re.findall(r"^COPY (.+) \S+$", files["deployer.Dockerfile"], re.MULTILINE))
        assert {name for line in copied for name in line.split()} <= {
            line.removeprefix("!") for line in files[".dockerignore"].splitlines()
        }


def test_compose_sees_new_files() -> None:
    """The proxy's configuration is in a folder of its own, so a replaced one is seen; the deployer reads `input`."""
    services = project(PLAIN)["services"]
    (conf,) = (each for each in services["proxy"]["volumes"] if each["source"] == "./proxy")
    assert services["proxy"]["command"][1:3] == ["-c", f"{conf['target']}/nginx.conf"]
    assert "proxy/nginx.conf" in texts(compose_files(PLAIN))
    assert {"type": "bind", "source": "./input", "target": "/input", "read_only": True} in (
        services["deployer"]["volumes"]
    )


def test_the_proxy_stays_while_the_inference_service_is_away() -> None:
    """Its readiness asks the proxy alone, so clients get its 503 and no refused connection."""
    (container,) = one(manifests(PLAIN), "Deployment", "proxy")["spec"]["template"]["spec"]["containers"]
    assert container["readinessProbe"]["httpGet"]["path"] == "/healthz"


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "LOCALHOST", "127.8.8.8", "api.localhost", "0.0.0.0"])
@pytest.mark.parametrize("member", ["api", "web", "files"])
def test_clearml_on_loopback_is_refused(member: str, host: str) -> None:
    """In a container that would be the container itself; the option that helps is named."""
    with pytest.raises(UsageError, match=f"--clearml-{member}"):
        replace(PLAIN, clearml=replace(CLEARML, **{member: f"http://{host}:8008"}))


def test_the_default_body_lets_the_largest_image_pass_in_base64() -> None:
    """The limit fits max_image_bytes as JSON, and stays below 50 MB for the default of 32 MiB."""
    for image in (1024, 1_000_000, 32 * 1024 * 1024):
        assert default_body(image) > (image + 2) // 3 * 4 + 1000
    assert default_body(32 * 1024 * 1024) < 50_000_000


def test_a_folder_that_cannot_be_written_is_an_error_with_a_remedy(tmp_path: Path) -> None:
    """Exit 2 with the folder, the system's words without their number, and how to choose another."""
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="cannot be written") as caught:
        write_files((RenderedFile(name="README.md", text="x"),), tmp_path / "file" / "out")
    assert caught.value.evidence == "Not a directory"
    assert "-o DIR" in caught.value.hint
