"""The rendered Compose project, as the programs that are meant for it take it."""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from tao2serve.render.compose import compose_files
from tao2serve.render.files import write_files
from tao2serve.render.images import release_of
from tao2serve.render.request import ClearMLAddresses, RenderRequest

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
    assert (tmp_path / "secrets" / "tls.key").stat().st_mode & 0o777 == 0o600
    ignored = (tmp_path / ".gitignore").read_text(encoding="utf-8").split()
    assert {".env", "secrets/"} <= set(ignored)
