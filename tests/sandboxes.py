"""Which tests share a sandbox, so that one process runs them, one after the other."""

from __future__ import annotations

from typing import Final

# Modules whose tests share one sandbox, in this order; tests of a managed one share another.
SHARED: Final = frozenset({
    "test_adopt", "test_bad_bodies", "test_deploy", "test_deploy_again", "test_deploy_killed", "test_doctor",
    "test_endpoint", "test_loadtest_commands", "test_loadtest_layers_served", "test_loadtest_servers",
    "test_pipeline", "test_placement", "test_predict", "test_publish", "test_remote", "test_rollout", "test_sandbox",
    "test_tao_uploads", "test_tune", "test_verify_servers", "test_watch",
})  # fmt: skip

# These install NVIDIA's launcher, into an environment that they share.
LAUNCHER: Final = frozenset({"test_tao_launcher", "test_tao_runs"})


def sandbox_of(nodeid: str) -> str:
    """The sandbox or server that a test shares with others, or its module, which may have one of its own."""
    path, _, name = nodeid.partition("::")
    module = path.rpartition("/")[2].removesuffix(".py")
    if "managed" in module or "managed" in name:
        return "managed"
    if module.startswith("test_docs_"):
        return "reader"
    if "contract/" in path:
        return "contract"
    if module in LAUNCHER:
        return "launcher"
    return "sandbox" if module in SHARED else module
