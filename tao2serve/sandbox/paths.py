"""Where the sandbox keeps its things, all under one home folder."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class SandboxPaths:
    """Folders and files of one sandbox; nothing of it lies outside `root`."""

    home: Path

    @property
    def root(self) -> Path:
        return self.home / "sandbox"

    @property
    def state(self) -> Path:
        return self.root / "state.json"

    @property
    def ports(self) -> Path:
        return self.root / "ports.json"

    @property
    def seed(self) -> Path:
        return self.root / "seed.json"

    @property
    def lock(self) -> Path:
        return self.home / "sandbox.lock"

    @property
    def credentials(self) -> Path:
        return self.root / "credentials.json"

    @property
    def clearml_conf(self) -> Path:
        return self.root / "clearml.conf"

    @property
    def clearml_cache(self) -> Path:
        return self.root / "clearml-cache"

    @property
    def server(self) -> Path:
        return self.root / "clearml-server"

    @property
    def repository(self) -> Path:
        return self.root / "model-repository"

    @property
    def backends(self) -> Path:
        return self.root / "triton-backends"

    @property
    def controller(self) -> Path:
        """Of ClearML Serving's own Triton controller; there if the sandbox was last started with it."""
        return self.root / "triton-controller"

    @property
    def downloads(self) -> Path:
        """The model repository that the controller fills."""
        return self.controller / "models"

    @property
    def controller_cache(self) -> Path:
        return self.controller / "cache"

    @property
    def shim(self) -> Path:
        return self.controller / "bin"

    @property
    def triton_record(self) -> Path:
        """Which process the controller's Triton is."""
        return self.controller / "tritonserver.json"

    @property
    def agent(self) -> Path:
        """Of ClearML's agent."""
        return self.root / "agent"

    @property
    def agent_wanted(self) -> Path:
        """There if the sandbox was last started with the agent."""
        return self.agent / "wanted"

    @property
    def agent_environment(self) -> Path:
        return self.agent / "environment"

    @property
    def agent_temporary(self) -> Path:
        return self.agent / "tmp"

    @property
    def temporary(self) -> Path:
        return self.root / "tmp"

    @property
    def logs(self) -> Path:
        return self.root / "logs"

    def log(self, name: str) -> Path:
        return self.logs / f"{name}.log"
