"""The images and packages that go together, pinned, and where each fact comes from.

No image was pulled or run where these lines were written. docs/render.md says what was seen of each.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from tao2serve.errors import UsageError

__all__ = [
    "DEFAULT_RELEASE",
    "DEPLOYER_EXTRAS",
    "DEPLOYER_PACKAGES",
    "INFERENCE_PACKAGES",
    "PROXY_IMAGE",
    "PYTHON_IMAGE",
    "RELEASES",
    "TRITON_PACKAGES",
    "TritonRelease",
    "release_of",
    "release_with_tensorrt",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class TritonRelease:
    """One monthly release of NVIDIA's Triton container; `tensorrt` is what its plans must have been built with."""

    tag: str  # "25.01"
    version: str  # Triton's own, "2.54.0"
    tensorrt: str  # "10.8.0"
    python: str  # of its python backend, "3.12"

    @property
    def image(self) -> str:
        return f"nvcr.io/nvidia/tritonserver:{self.tag}-py3"


RELEASES: Final = (
    TritonRelease(tag="24.02", version="2.43.0", tensorrt="8.6.3", python="3.10"),
    TritonRelease(tag="24.08", version="2.49.0", tensorrt="10.3.0", python="3.10"),
    TritonRelease(tag="24.10", version="2.51.0", tensorrt="10.5.0", python="3.10"),
    TritonRelease(tag="25.01", version="2.54.0", tensorrt="10.8.0", python="3.12"),
    TritonRelease(tag="25.03", version="2.56.0", tensorrt="10.9.0", python="3.12"),
)
DEFAULT_RELEASE: Final = "25.01"  # its Python is one that this project supports; 24.10 is the Triton the tests run
PYTHON_IMAGE: Final = "python:3.11.11-slim-bookworm"
PROXY_IMAGE: Final = "nginx:1.28.0-alpine"

# Triton's python backend: what the models of tao2serve import. Each has wheels for Python 3.10 and 3.12.
TRITON_PACKAGES: Final = ("numpy==1.26.4", "onnxruntime==1.23.2", "pillow==12.0.0")

# The inference service: clearml-serving declares clearml and pillow alone, and imports the rest. All that pip chose
# for Python 3.11, so that a build next year is this one.
INFERENCE_PACKAGES: Final = (
    "aiocache==0.12.3",
    "annotated-doc==0.0.7",
    "annotated-types==0.8.0",
    "anyio==4.16.0",
    "attrs==26.1.0",
    "certifi==2026.10.19.post1",
    "charset-normalizer==3.5.3",
    "clearml==2.1.12",
    "clearml-serving==1.3.5",
    "click==8.5.1",
    "fastapi==0.165.0",
    "furl==2.1.4",
    "grpcio==1.85.1",
    "h11==0.16.0",
    "idna==3.20",
    "jsonschema==4.26.0",
    "jsonschema-specifications==2025.9.1",
    "kafka-python==3.0.12",
    "lz4==4.4.5",
    "ml_dtypes==0.5.4",
    "numpy==1.26.4",
    "opentelemetry-api==1.45.2",
    "orderedmultidict==1.0.2",
    "packaging==26.4",
    "pathlib2==2.3.7.post1",
    "pillow==13.0.0",
    "prometheus_client==0.26.0",
    "protobuf==6.33.6",
    "psutil==7.2.2",
    "pydantic==2.14.4",
    "pydantic_core==2.50.5",
    "PyJWT==2.15.1",
    "pyparsing==3.3.3",
    "python-dateutil==4.0.0",
    "python-rapidjson==1.25",
    "PyYAML==6.0.4",
    "referencing==0.37.0",
    "requests==2.34.2",
    "rpds-py==2026.9.1",
    "six==1.17.0",
    "starlette==1.10.0",
    "tritonclient==2.73.0",
    "typing-inspection==0.4.5",
    "typing_extensions==4.16.0",
    "tzdata==2026.6",
    "urllib3==2.8.0",
    "uvicorn==0.54.0",
)

# The deployer: what tao2serve declares, with what load tests and weights and artifacts in object storage need, and what
# those need. All that pip chose for Python 3.11, with the inference service's numpy.
DEPLOYER_EXTRAS: Final = ("azure", "gs", "loadtest", "s3")
DEPLOYER_PACKAGES: Final = (
    "aiohappyeyeballs==2.7.1",
    "aiohttp==3.14.5",
    "aiosignal==1.4.0",
    "annotated-doc==0.0.7",
    "annotated-types==0.8.0",
    "anyio==4.16.0",
    "attrs==26.1.0",
    "azure-core==1.41.0",
    "azure-storage-blob==12.31.1",
    "bidict==0.24.1",
    "blinker==1.9.0",
    "boto3==1.44.8",
    "botocore==1.44.8",
    "brotli==1.2.1",
    "certifi==2026.10.19.post1",
    "cffi==2.1.1",
    "charset-normalizer==3.5.3",
    "clearml==2.1.12",
    "clearml-serving==1.3.5",
    "click==8.5.1",
    "ConfigArgParse==1.9.0",
    "cryptography==50.0.2",
    "Flask==3.1.3",
    "flask-cors==6.0.5",
    "Flask-Login==0.6.3",
    "flatbuffers==25.12.19",
    "frozenlist==1.8.0",
    "furl==2.1.4",
    "gevent==26.9.0",
    "geventhttpclient==2.6.1",
    "google-api-core==2.44.0",
    "google-auth==2.63.0",
    "google-cloud-core==2.8.0",
    "google-cloud-storage==3.17.1",
    "google-crc32c==1.9.0",
    "google-resumable-media==2.11.0",
    "googleapis-common-protos==1.76.0",
    "greenlet==3.3.2",
    "grpcio==1.85.3",
    "h11==0.16.0",
    "h5py==3.16.0",
    "httpcore==1.0.9",
    "httpx==0.28.1",
    "idna==3.20",
    "iniconfig==2.3.1",
    "isodate==0.7.2",
    "itsdangerous==2.2.0",
    "Jinja2==3.1.6",
    "jmespath==1.1.0",
    "jsonschema==4.26.0",
    "jsonschema-specifications==2025.9.1",
    "locust==2.47.0",
    "markdown-it-py==4.3.0",
    "MarkupSafe==3.0.4",
    "mdurl==0.1.2",
    "ml_dtypes==0.5.4",
    "msgpack==1.2.4",
    "multidict==7.2.1",
    "narwhals==2.29.0",
    "numpy==1.26.4",
    "nvidia-ml-py==13.615.71",
    "onnx==1.23.2",
    "onnxruntime==1.32.0",
    "opentelemetry-api==1.45.2",
    "orderedmultidict==1.0.2",
    "packaging==26.4",
    "pathlib2==2.3.7.post1",
    "pillow==13.0.0",
    "plotly==7.1.0",
    "pluggy==1.7.0",
    "propcache==0.5.4",
    "proto-plus==1.29.0",
    "protobuf==6.33.6",
    "psutil==7.2.2",
    "pyasn1==0.6.5",
    "pyasn1_modules==0.4.2",
    "pycparser==3.12",
    "pydantic==2.14.4",
    "pydantic-settings==2.16.3",
    "pydantic_core==2.50.5",
    "Pygments==2.21.0",
    "PyJWT==2.15.1",
    "pyparsing==3.3.3",
    "pytest==9.2.0",
    "python-dateutil==2.9.0.post0",
    "python-dotenv==1.2.4",
    "python-engineio==4.15.1",
    "python-rapidjson==1.25",
    "python-socketio==5.18.1",
    "PyYAML==6.0.4",
    "pyzmq==27.3.0",
    "referencing==0.37.0",
    "requests==2.34.2",
    "rich==15.0.0",
    "rpds-py==2026.9.1",
    "s3transfer==0.19.3",
    "shellingham==1.5.4",
    "simple-websocket==1.1.0",
    "six==1.17.0",
    "tritonclient==2.73.0",
    "typer==0.29.2",
    "typing-inspection==0.4.5",
    "typing_extensions==4.16.0",
    "urllib3==2.8.0",
    "websocket-client==1.9.2",
    "Werkzeug==3.1.9",
    "wsproto==1.3.2",
    "yarl==1.25.1",
    "zope.event==6.2",
    "zope.interface==8.7",
)


def release_of(tag: str) -> TritonRelease:
    """Return a release by its tag, such as "25.01"; raises UsageError naming those that are known."""
    for release in RELEASES:
        if release.tag == tag:
            return release
    raise UsageError(
        "--triton", f"is {tag!r}, not a release that is known here", hint=f"one of: {_known()}, or --triton-image IMAGE"
    )


def release_with_tensorrt(version: str) -> TritonRelease:
    """Return the release whose TensorRT is `version`, compared as far as both go; raises UsageError if none has it.

    A plan loads only in the TensorRT that built it, down to the patch number.
    """
    asked = version.split(".")
    for release in RELEASES:
        has = release.tensorrt.split(".")
        shared = min(len(asked), len(has))
        if shared >= 2 and asked[:shared] == has[:shared]:
            return release
    raise UsageError(
        "--tensorrt",
        f"is {version!r}, and no release known here has that TensorRT",
        evidence=f"known: {_known()}",
        hint="find the release in NVIDIA's support matrix and name it: --triton-image IMAGE",
    )


def _known() -> str:
    return ", ".join(f"{release.tag} (TensorRT {release.tensorrt})" for release in RELEASES)
