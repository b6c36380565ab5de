"""What is to be rendered: frozen values, each checked before it comes near a template."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import ip_address
from types import MappingProxyType
from typing import Final
from urllib.parse import urlsplit

from tao2serve.errors import UsageError
from tao2serve.render.images import TritonRelease

__all__ = ["METRICS_ENVIRONMENT", "METRICS_PORT", "ClearMLAddresses", "ProxyPlaces", "RenderRequest", "default_body"]

# What the inference service is told about metrics (runtime/exporter.py). The port is published
# nowhere; in Kubernetes it is open to the namespace of --metrics-from alone. None and {} leave it all out.
METRICS_PORT: Final[int | None] = 9464
METRICS_ENVIRONMENT: Final[Mapping[str, str]] = MappingProxyType(
    {
        "TAO2SERVE_METRICS_PORT": str(METRICS_PORT),
        "TAO2SERVE_METRICS_ADDRESS": "0.0.0.0",  # noqa: S104 - of a container
    }
)

_LABEL: Final = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
_HOST: Final = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.-]{0,251}[A-Za-z0-9])?")
_URL: Final = re.compile(r"https?://[A-Za-z0-9][A-Za-z0-9.-]{0,252}(:[0-9]{1,5})?(/[A-Za-z0-9._~/-]*)?")
_ID: Final = re.compile(r"[A-Za-z0-9]{8,64}")
_IMAGE: Final = re.compile(
    r"[a-z0-9][a-z0-9.-]*(:[0-9]{1,5})?(/[a-z0-9][a-z0-9._-]*)*(:[A-Za-z0-9_][A-Za-z0-9_.-]{0,127})?(@sha256:[0-9a-f]{64})?"
)
_PREFIX: Final = re.compile(r"[a-z0-9][a-z0-9.-]*(:[0-9]{1,5})?(/[a-z0-9][a-z0-9._-]*)*")
_TAG: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
_PATH: Final = re.compile(r"[A-Za-z0-9_./][A-Za-z0-9_./+@=-]{0,399}")  # no option, whatever it is handed to


@dataclass(frozen=True, slots=True, kw_only=True)
class ClearMLAddresses:
    """Where ClearML is; "" where it is not said. Credentials have no place here."""

    api: str = ""
    web: str = ""
    files: str = ""
    service: str = ""

    @property
    def complete(self) -> bool:
        return all((self.api, self.web, self.files, self.service))


@dataclass(frozen=True, slots=True, kw_only=True)
class ProxyPlaces:
    """Where the proxy listens and finds its files; a test puts it elsewhere.

    With `resolver` the name of the inference service is looked up again and again, as Docker gives a container that
    is made anew another address; without, once at the start, as for an address of Kubernetes that stays.
    """

    listen: str = "8443"
    inference: str = "inference:8080"
    keys: str = "/etc/tao2serve/secrets/api-keys.map"
    certificate: str = "/etc/tao2serve/secrets/tls.crt"
    certificate_key: str = "/etc/tao2serve/secrets/tls.key"
    writable: str = "/tmp"  # noqa: S108 - a file system of the container's own
    resolver: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class RenderRequest:
    """Everything the files are made of; the same request gives the same bytes.

    Raises UsageError for a value that is not of its form: nothing that could end a quotation, a line or a document
    of YAML, nginx or a shell passes.
    """

    release: TritonRelease
    version: str  # of tao2serve, and so of the images that are built
    clearml: ClearMLAddresses
    triton_image: str = ""  # instead of the release's
    image_prefix: str = "tao2serve"
    gpus: int = 0
    replicas: int = 1
    workers: int = 1
    poll_minutes: float = 0.5
    max_body_bytes: int
    deadline_s: float
    requests_per_s: int = 50
    connections: int = 64
    host: str = "localhost"
    # Compose
    port: int = 8443
    secrets: str = "./secrets"
    tls_certificate: str = ""
    tls_key: str = ""
    # Kubernetes
    namespace: str = "tao2serve"
    storage_gib: int = 20
    storage_class: str = ""
    autoscale_to: int = 0
    metrics_from: str = ""
    service_type: str = "ClusterIP"

    def __post_init__(self) -> None:
        _match(_HOST, self.host, "--host", "a host name")
        _match(_LABEL, self.namespace, "--namespace", "a Kubernetes name")
        _match(_PREFIX, self.image_prefix, "--image-prefix", "the first part of an image's name")
        _match(_PATH, self.secrets, "--secrets", "a path of letters, digits and _./+@=-")
        _match(_TAG, self.version, "version", "an image's tag")
        for option, value, pattern, form in (
            ("--triton-image", self.triton_image, _IMAGE, "an image's name"),
            ("--tls-cert", self.tls_certificate, _PATH, "a path of letters, digits and _./+@=-"),
            ("--tls-key", self.tls_key, _PATH, "a path of letters, digits and _./+@=-"),
            ("--storage-class", self.storage_class, _LABEL, "a Kubernetes name"),
            ("--metrics-from", self.metrics_from, _LABEL, "a Kubernetes name"),
            ("--clearml-api", self.clearml.api, _URL, "an http or https URL without credentials"),
            ("--clearml-web", self.clearml.web, _URL, "an http or https URL without credentials"),
            ("--clearml-files", self.clearml.files, _URL, "an http or https URL without credentials"),
            ("--service", self.clearml.service, _ID, "a ClearML task id"),
        ):
            if value:
                _match(pattern, value, option, form)
        for option, url in (
            ("--clearml-api", self.clearml.api),
            ("--clearml-web", self.clearml.web),
            ("--clearml-files", self.clearml.files),
        ):
            if url and _is_loopback(urlsplit(url).hostname or ""):
                raise UsageError(
                    option,
                    f"is {url}, which in a container is the container itself",
                    hint=f"name ClearML as other machines do: {option} URL, instead of the environment's",
                )
        if bool(self.tls_certificate) != bool(self.tls_key):
            raise UsageError("--tls-cert", "and --tls-key go together")
        if not 0 < self.poll_minutes <= 60:
            raise UsageError("--poll-minutes", f"is {self.poll_minutes}", hint="more than 0, and at most 60")
        if self.autoscale_to and self.autoscale_to < self.replicas:
            raise UsageError("--autoscale-to", f"is {self.autoscale_to}, fewer than --replicas {self.replicas}")

    @property
    def base_image(self) -> str:
        return self.triton_image or self.release.image

    @property
    def subject_alternative_name(self) -> str:
        """Return the host as a certificate names it: clients look for an address among addresses alone."""
        try:
            return f"IP:{ip_address(self.host)}"
        except ValueError:
            return f"DNS:{self.host}"

    @property
    def triton_tag(self) -> str:
        """Say what the image is built on, since plans depend on it."""
        return self.version if self.triton_image else f"{self.version}-{self.release.tag}"

    @property
    def answer_timeout_s(self) -> int:
        """Triton's deadline, and as long as a change of configuration was seen to hold up a request (2.1 s), twice."""
        return int(self.deadline_s) + 6


def default_body(max_image_bytes: int) -> int:
    """Return the body limit that lets the largest image pass in base64 too: a third more, in whole MiB."""
    mib = 1024 * 1024
    return (max_image_bytes * 4 // 3 // mib + 2) * mib


def _match(pattern: re.Pattern[str], value: str, option: str, form: str) -> None:
    if len(value) > 400 or not pattern.fullmatch(value):
        raise UsageError(option, f"is {value!r}, not {form}")


def _is_loopback(host: str) -> bool:
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        address = ip_address(host)
    except ValueError:
        return False
    return address.is_loopback or address.is_unspecified
