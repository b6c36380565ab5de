"""The rendered Compose project, as the programs that are meant for it take it."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import time
from dataclasses import replace
from pathlib import Path

import httpx
import pytest

from tao2serve.render.compose import compose_files
from tao2serve.render.files import write_files
from tao2serve.render.images import release_of
from tao2serve.render.kubernetes import kubernetes_files
from tao2serve.render.request import ClearMLAddresses, RenderRequest
from tao2serve.render.templates import triton_command
from tao2serve.sandbox.health import free_ports
from tao2serve.sandbox.triton_server import (
    TritonPorts,
    clean_shared_memory,
    prepare_backends,
    triton_binary,
    triton_environment,
    triton_options,
)

SAMPLE = Path(__file__).resolve().parents[2] / "model_repo" / "street"
CLEARML = ClearMLAddresses(
    api="https://api.example", web="https://app.example", files="https://files.example", service="0123456789abcdef"
)
PLAIN = RenderRequest(
    release=release_of("25.01"), version="0.1.0", clearml=ClearMLAddresses(), max_body_bytes=1_000_000, deadline_s=10.0
)
FULL = replace(PLAIN, gpus=2, replicas=3, tls_certificate="/etc/tls/full.pem", tls_key="/etc/tls/key.pem")


@pytest.mark.skipif(shutil.which("docker-compose") is None, reason="no docker-compose here (Debian has it)")
def test_docker_compose_reads_it(tmp_path: Path) -> None:
    """docker-compose itself reads the project with its .env filled in, and names a variable that is missing."""
    write_files(compose_files(FULL), tmp_path)
    command = ["docker-compose", "-f", str(tmp_path / "compose.yaml"), "config", "--quiet"]
    unfilled = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert unfilled.returncode != 0
    assert "set it in .env" in unfilled.stderr
    example = (tmp_path / ".env.example").read_text(encoding="utf-8")
    (tmp_path / ".env").write_text(re.sub(r"=$", "=1000", example, flags=re.MULTILINE), encoding="utf-8")
    filled = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert filled.returncode == 0, filled.stderr


def test_shell_scripts_are_shell(tmp_path: Path) -> None:
    """The scripts work: a key that nginx's file takes, mode 0600, and a certificate for the host."""
    write_files(compose_files(replace(PLAIN, host="detect.example.org")), tmp_path)
    made = subprocess.run(["sh", "new-key.sh", "camera-1"], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert re.fullmatch(r"[0-9a-f]{64}\n", made.stdout)
    keys = tmp_path / "secrets" / "api-keys.map"
    assert keys.read_text(encoding="utf-8") == f'"{made.stdout.strip()}" camera-1;\n'
    assert keys.stat().st_mode & 0o777 == 0o600
    for hostile in ("", "a b", 'x";', "$(id)"):
        assert subprocess.run(["sh", "new-key.sh", hostile], cwd=tmp_path, capture_output=True, check=False).returncode
    subprocess.run(["sh", "self-signed.sh"], cwd=tmp_path, capture_output=True, check=True)
    assert names_of(tmp_path / "secrets" / "tls.crt") == "DNS:detect.example.org"
    write_files(compose_files(replace(PLAIN, host="10.0.0.5")), tmp_path, force=True)
    subprocess.run(["sh", "self-signed.sh"], cwd=tmp_path, capture_output=True, check=True)
    assert names_of(tmp_path / "secrets" / "tls.crt") == "IP Address:10.0.0.5"
    assert (tmp_path / "secrets" / "tls.key").stat().st_mode & 0o777 == 0o600
    ignored = (tmp_path / ".gitignore").read_text(encoding="utf-8").split()
    assert {".env", "secrets/"} <= set(ignored)


def names_of(certificate: Path) -> str:
    """What a certificate says that it is for."""
    command = ["openssl", "x509", "-in", str(certificate), "-noout", "-ext", "subjectAltName"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()[1].strip()


def test_a_key_that_cannot_be_made_leaves_no_line(tmp_path: Path) -> None:
    """The command of the README for Kubernetes writes a key of 64 digits, and without openssl no line at all."""
    readme = next(file.text for file in kubernetes_files(replace(PLAIN, clearml=CLEARML)) if file.name == "README.md")
    (command,) = (line for line in readme.splitlines() if "api-keys.map    #" in line)
    (tmp_path / "openssl").write_text("#!/bin/sh\nexit 1\n")
    (tmp_path / "openssl").chmod(0o755)
    broken = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    subprocess.run(["sh", "-c", command], cwd=tmp_path, env=broken, check=False)
    keys = tmp_path / "api-keys.map"
    assert not keys.exists()
    subprocess.run(["sh", "-c", command], cwd=tmp_path, check=True)
    assert re.fullmatch(r'"[0-9a-f]{64}" camera-1;\n', keys.read_text())


@pytest.mark.integration
def test_triton_passes_over_what_a_killed_deployer_left(tmp_path: Path) -> None:
    """On the rendered command line Triton loads the models, and neither a staged folder nor half of one."""
    models = tmp_path / "models"
    shutil.copytree(SAMPLE, models / "street")
    for name, renamed in (("street_4", ".street_4.abcdefgh"), ("street_5", ".street_5.abcdefgh")):
        shutil.copytree(SAMPLE, models / renamed)
        config = models / renamed / "config.pbtxt"
        config.write_text(config.read_text().replace('name: "street"', f'name: "{name}"', 1))
        assert f'name: "{name}"' in config.read_text()
    (models / ".street_5.abcdefgh" / "1" / "model.py").unlink()  # loaded, this would hang Triton
    prepare_backends(tmp_path / "backends")
    ports = TritonPorts(**dict(zip(("http", "grpc", "metrics"), free_ports(3), strict=True)))
    prefix = f"tao2serve_rendered_{os.getpid()}_"
    options = triton_options(tmp_path / "backends", ports, shared_memory=prefix)
    # Options that both give are the same; the binary refuses to read one twice.
    given = {option.partition("=")[0] for option in options}
    rendered = [word.replace("/models", str(models)) for word in triton_command()[1:]]
    rendered = [word for word in rendered if word.partition("=")[0] not in given]
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(
            [str(triton_binary()), *rendered, *options], env=triton_environment(os.environ), stdout=log, stderr=log
        )
    url = f"http://127.0.0.1:{ports.http}/v2"
    try:
        deadline = time.monotonic() + 60
        while not _is_ready(f"{url}/models/street/ready"):
            assert process.poll() is None, (tmp_path / "log").read_text()
            assert time.monotonic() < deadline, (tmp_path / "log").read_text()
            time.sleep(0.05)
        index = httpx.post(f"{url}/repository/index", json={}, timeout=10, trust_env=False).json()
    finally:
        process.terminate()
        process.wait(60)
        clean_shared_memory(prefix)
    assert [model["name"] for model in index if "state" in model] == ["street"]
    assert {model["name"] for model in index} == {path.name for path in models.iterdir()}


def _is_ready(url: str) -> bool:
    try:
        return httpx.get(url, timeout=10, trust_env=False).status_code == 200
    except httpx.HTTPError:
        return False
