"""What NVIDIA's launcher prints when it fails, and what mends it."""

from __future__ import annotations

from typing import Final

from tao2serve.errors import ToolError
from tao2serve.tao.child import ChildOutcome

__all__ = ["explain_failure"]

# (what is printed, fact, hint), the first that is found; texts of nvidia-tao 6.26.3, docker 4.3.1 (its Python
# package), Docker's daemon and TAO 5.0's exporter.
_KNOWN: Final = (
    (
        (
            *("Docker CLI hasn't been logged in", "Docker not logged in to", "Did you run docker login"),
            *("unauthorized: authentication required", "requires 'docker login'"),  # of `docker run`
        ),
        "needs a login to NVIDIA's registry",
        "docker login nvcr.io   (user name $oauthtoken, password: an NGC API key)",
    ),
    (
        ("PermissionError(13",),
        "may not use Docker",
        "add your user to the group docker, or run as a user who is in it",
    ),
    (
        ("Error while fetching server API version", "Cannot connect to the Docker daemon"),
        "cannot reach Docker",
        "install Docker and the NVIDIA Container Toolkit, start Docker, and see that `docker info` answers",
    ),
    (
        ("docker: command not found", "docker: not found"),
        "misses the command docker",
        "install Docker's command line",
    ),
    (
        ("Docker pull failed",),
        "could not fetch NVIDIA's container",
        "see that nvcr.io can be reached, that `docker login nvcr.io` worked, and that the disk has room for it",
    ),
    (
        ("could not select device driver",),
        "found no GPU support in Docker",
        "install the NVIDIA Container Toolkit: the launcher always asks for GPUs",
    ),
    (
        ("Docker instantiation failed",),
        "could not start NVIDIA's container",
        "the evidence is Docker's own; DockerOptions of ~/.tao_mounts.json are passed to it",
    ),
    (
        ("can't open file",),
        "started a container that cannot read the folder it was given",
        "set TMPDIR to a folder that Docker sees, and see that DockerOptions.user of ~/.tao_mounts.json is "
        "you, or root",
    ),
    (
        ("The key used to load the model is incorrect", "Invalid decryption"),
        "could not decrypt the model with this key",
        "give the key of the training run",
    ),
    (
        ("Experiment Spec Setting Error", "should be set in experiment spec file", 'has no field named "'),
        "refused the experiment spec",
        "tao2serve spec check SPEC",
    ),
    (
        ("Ran out of GPU memory",),
        "ran out of GPU memory",
        "lower training_config.batch_size_per_gpu, or train on a larger GPU",
    ),
    (
        ("No module named nvidia_tao_tf1", "No module named 'nvidia_tao_tf1"),
        "started a container that has no TAO 5.0 for TensorFlow 1",
        "take ~/.tao/config.json away: it names another container than the launcher's own",
    ),
)
_EVIDENCE_LINES: Final = 4
_EVIDENCE_CHARACTERS: Final = 1200
_NOISE: Final = ("~/.tao_mounts.json wasn't found", "Please note that this will be deprecated", "Stopping container")


def explain_failure(outcome: ChildOutcome, *, code: int | None, subject: str) -> ToolError:
    """Return the error for a run that failed; `code` is that of the subtask, None if it never started."""
    telling = [line for line in outcome.lines if not any(noise in line for noise in _NOISE)]
    for texts, fact, hint in _KNOWN:
        found = next((line for line in telling if any(text in line for text in texts)), None)
        if found is not None:
            return ToolError(subject, fact, evidence=found[:_EVIDENCE_CHARACTERS], hint=hint, log=outcome.log)
    evidence = "\n".join(telling[-_EVIDENCE_LINES:])[-_EVIDENCE_CHARACTERS:] or "it printed nothing"
    fact = f"failed with exit code {code}" if code is not None else "ended without having run"
    return ToolError(subject, fact, evidence=evidence, hint="the log has all it printed", log=outcome.log)
