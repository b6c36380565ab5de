"""Which models of the watched Triton answer which target of a plan, and what cannot be told apart."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import TypeAlias

from tao2serve.loadtest.addresses import is_loopback, place_of
from tao2serve.loadtest.plan import LoadPlan, Target
from tao2serve.loadtest.triton_counts import ModelCounts, is_part_of

__all__ = ["Behind", "attributed", "models_behind", "of_endpoints", "prefixes", "triton_grpc", "unknown_models"]

Behind: TypeAlias = tuple[tuple[str, ...], ...]  # for each target the names of models, see models_behind


def triton_grpc(plan: LoadPlan) -> str:
    """Return HOST:PORT of the gRPC of the Triton that is watched, as far as the plan knows it, else ""."""
    return plan.triton or next((target.url for target in plan.targets if target.protocol == "triton-grpc"), "")


def models_behind(plan: LoadPlan) -> Behind:
    """Return for each target the models of the watched Triton that answer it: none if unknown, or on another Triton.

    An ensemble passes on to models of its name and more, which count as behind it too (`is_part_of`).
    """
    return tuple(_behind(plan, target) for target in plan.targets)


def _behind(plan: LoadPlan, target: Target) -> tuple[str, ...]:
    if target.protocol == "endpoint":
        return (plan.triton_model,) if plan.triton_model and len(plan.targets) == 1 else target.behind
    return () if _is_elsewhere(plan, target) else (target.model,)


def _is_elsewhere(plan: LoadPlan, target: Target) -> bool:
    """Whether a Triton target is not on the Triton that is watched; of its HTTP port only the host can say so."""
    watched, theirs = place_of(triton_grpc(plan)), place_of(target.url)
    is_same_host = watched[0] == theirs[0] or (is_loopback(watched[0]) and is_loopback(theirs[0]))
    return not is_same_host or (target.protocol == "triton-grpc" and watched[1] != theirs[1])


def prefixes(plan: LoadPlan) -> tuple[str, ...]:
    """Return each name of models_behind once."""
    return tuple(dict.fromkeys(name for names in models_behind(plan) for name in names))


def unknown_models(plan: LoadPlan) -> list[str]:
    """Say of which targets the watched Triton tells nothing, or that what it tells is of all it does."""
    watched, notes, unknown = triton_grpc(plan), [], []
    for target, names in zip(plan.targets, models_behind(plan), strict=True):
        if names:
            continue
        if target.protocol == "endpoint":
            unknown.append(target.label)
        else:
            notes.append(f"{target.label} is at {target.url}, and the figures are of Triton at {watched}")
    if unknown:
        told = "of the other targets' models" if prefixes(plan) else "of all its models"
        notes.append(f"the models behind {', '.join(unknown)} are not known: Triton's figures are {told}")
    return notes


def attributed(models: Iterable[ModelCounts], plan: LoadPlan) -> tuple[tuple[ModelCounts, ...], list[str]]:
    """Return the models with the targets that each answers, and say which answer endpoints and direct requests both."""
    behind = models_behind(plan)
    found = tuple(replace(model, targets=_asking(model.name, behind)) for model in models)
    mixed = [model.name for model in found if _is_mixed(model, plan.targets)]
    if not mixed:
        return found, []
    return found, [
        f"the figures of {', '.join(mixed)} are of requests to an endpoint and of direct ones together, "
        "so the endpoint's stage infer is not split"
    ]


def _asking(model: str, behind: Behind) -> tuple[int, ...]:
    return tuple(index for index, names in enumerate(behind) if any(is_part_of(model, name) for name in names))


def _is_mixed(model: ModelCounts, targets: Sequence[Target]) -> bool:
    protocols = {targets[index].protocol for index in model.targets}
    return "endpoint" in protocols and len(protocols) > 1


def of_endpoints(models: Sequence[ModelCounts], targets: Sequence[Target]) -> tuple[ModelCounts, ...]:
    """Return the models whose counters are those of the endpoints' mean request; () if they cannot be told apart.

    That is so if one of them is also asked directly, or if nothing is known of one of the endpoints.
    """
    if len(targets) == 1:
        return tuple(models)
    endpoints = {index for index, target in enumerate(targets) if target.protocol == "endpoint"}
    theirs = tuple(model for model in models if endpoints & set(model.targets))
    known = {index for model in theirs for index in model.targets}
    return theirs if known == endpoints else ()
