"""What differs between two load tests, apart from what they measured."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlsplit

from tao2serve.loadtest.plan import LoadPlan

__all__ = ["Difference", "differences", "unknown", "unlike"]

# A number under another one of these is another question, not a change.
_DECISIVE_ENVIRONMENT: Final = {
    "images": "number of images",
    "images_digest": "content of the images",
    "cpu_model": "CPU of the load generator",
    "cpu_count": "number of CPUs",
    "serving_cpu": "CPU that serves",
    "gpu": "GPU",
}
# Others are of a version, which is what one compares.
_SERVING: Final = {"serving_cpu": "CPU that serves", "gpu": "GPU", "triton": "version of Triton"}
_PLAIN_MEMBERS: Final = {
    "model": "model",
    "warmup_s": "warm-up",
    "timeout_s": "timeout",
    "order": "order of the images",
    "seed": "seed",
    "processes": "processes",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """One thing that is not the same in both; a decisive one makes their numbers incomparable."""

    name: str
    old: str
    new: str
    is_decisive: bool

    def to_dict(self) -> dict[str, object]:
        return {"name": self.name, "old": self.old, "new": self.new, "decisive": self.is_decisive}


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> tuple[Difference, ...]:
    """Return what differs between two documents of load tests, what makes them incomparable first.

    The version of an endpoint and its address are no decisive difference, since that is what is compared.
    What only one of them tells is passed over.
    """
    found = [*_of_load(old, new), *_of_environment(old.get("environment") or {}, new.get("environment") or {})]
    found += [
        Difference(name=name, old=str(old[key]), new=str(new[key]), is_decisive=False)
        for key, name in _PLAIN_MEMBERS.items()
        if key in old and key in new and old[key] != new[key]
    ]
    return tuple(sorted(found, key=lambda difference: not difference.is_decisive))


def unlike(old: Mapping[str, Any], plan: LoadPlan) -> str:
    """Say what makes an earlier run incomparable with one by this plan, as far as that is known before it."""
    found = []
    if old["client"]["saturated"]:
        found.append("its load generator was the limit")
    if old["shape"] != str(plan.shape):
        found.append(f"it was a {old['shape']}, and this is a {plan.shape}")
    if old["run_time_s"] != plan.run_time_s:
        found.append(f"it ran for {old['run_time_s']:g} s, and this for {plan.run_time_s:g} s")
    return "; ".join(found)


def unknown(old: Mapping[str, Any], new: Mapping[str, Any]) -> tuple[str, ...]:
    """Return what serves that is not known of both runs, so that nobody knows whether it is the same."""
    before, after = old.get("environment") or {}, new.get("environment") or {}
    return tuple(name for key, name in _SERVING.items() if not (before.get(key) and after.get(key)))


def _of_load(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[Difference]:
    pairs = [
        ("load", old["shape"], new["shape"], True),
        ("run time", f"{old['run_time_s']:g} s", f"{new['run_time_s']:g} s", True),
        ("load generator", _generator(old), _generator(new), True),
        ("endpoint", _endpoints(old), _endpoints(new), True),
        ("version", _versions(old), _versions(new), False),
        ("address", _addresses(old), _addresses(new), False),
    ]
    return [
        Difference(name=name, old=before, new=after, is_decisive=decisive)
        for name, before, after, decisive in pairs
        if before != after or (name == "load generator" and before == "saturated")
    ]


def _generator(document: Mapping[str, Any]) -> str:
    return "saturated" if document["client"]["saturated"] else "not saturated"


def _of_environment(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[Difference]:
    return [
        Difference(
            name=_DECISIVE_ENVIRONMENT.get(key, key), old=str(old[key]), new=str(new[key]),
            is_decisive=key in _DECISIVE_ENVIRONMENT,
        )
        for key in old
        if key in new and str(old[key]) != str(new[key])
    ]  # fmt: skip


def _targets(document: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """Return protocol, path or model, and version of each target."""
    found = []
    for target in document["targets"]:
        path = target["model"] or urlsplit(target["url"]).path
        match = re.fullmatch(r"(.+?)[/_](\d+)(_\w+)?/?", path)  # people/4, people_4, people_4_detector
        name, version = (match[1] + (match[3] or ""), match[2]) if match else (path, "")
        found.append((target["protocol"], name, version))
    return found


def _endpoints(document: Mapping[str, Any]) -> str:
    weights = [target.get("weight", 1.0) for target in document["targets"]]
    shares = [f" × {weight:g}" if len(weights) > 1 else "" for weight in weights]
    return ", ".join(
        name + ("" if protocol == "endpoint" else f" ({protocol})") + share
        for (protocol, name, _), share in zip(_targets(document), shares, strict=True)
    )


def _versions(document: Mapping[str, Any]) -> str:
    return ", ".join(version or "alias" for _, _, version in _targets(document))


def _addresses(document: Mapping[str, Any]) -> str:
    return ", ".join(
        urlsplit(target["url"]).netloc.rpartition("@")[2] or target["url"] for target in document["targets"]
    )
