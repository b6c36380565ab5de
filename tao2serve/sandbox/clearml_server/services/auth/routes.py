"""The endpoints of `auth`, `login` and `users`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ...call import COMPANY, COMPANY_NAME, Call, Route
from ...errors import forbidden
from ...validation import mapping, number_in
from .errors import protected_identity
from .tokens import Gate

_PREFERENCES = "preferences"


def routes(gate: Gate) -> tuple[Route, ...]:
    """Return the routes; `auth.login` hands out tokens of this gate."""

    def login(call: Call) -> Mapping[str, Any]:
        """Exchange credentials for a token."""
        return {"token": gate.issue(number_in(call.params, "expiration_sec"))}

    def get_credentials(call: Call) -> Mapping[str, Any]:
        """List access keys; secrets never leave."""
        entry = {
            "access_key": gate.credentials.access_key,
            "last_used": call.now.removesuffix("+00:00"),
            "last_used_from": call.peer,
        }
        return {"credentials": [entry]}

    return (
        Route(name="auth.login", handler=login),
        Route(name="auth.get_credentials", handler=get_credentials),
    )


def create_credentials(call: Call) -> Mapping[str, Any]:
    """Refuse: keys are given when the server starts."""
    raise protected_identity()


def validate_token(call: Call) -> Mapping[str, Any]:
    """Refuse: only the server's own services may ask this."""
    raise forbidden("system, root")


def supported_modes(call: Call) -> Mapping[str, Any]:
    """Say that there is no login page."""
    return {
        "authenticated": True,
        "basic": {"enabled": False, "guest": {"enabled": False}},
        "server_errors": {"es_connection_error": False, "missed_es_upgrade": False},
        "sso": {},
        "sso_providers": [],
    }


def current_user(call: Call) -> Mapping[str, Any]:
    """Return the one account."""
    user = {
        "company": {"id": COMPANY, "name": COMPANY_NAME},
        "created": call.who.since,
        "id": call.who.user,
        "name": call.who.name,
        "role": "user",
    }
    started = {
        "agentName": "clearml",
        "configure": "clearml-init",
        "install": "pip install clearml",
        "packageName": "clearml",
    }
    return {"user": user, "getting_started": started, "settings": {"max_download_items": 50000}}


def list_users(call: Call) -> Mapping[str, Any]:
    """List the one account."""
    entry = {
        "id": call.who.user,
        "company": COMPANY,
        "name": call.who.name,
        "created": call.who.since,
    }
    return {"users": [entry]}


def get_preferences(call: Call) -> Mapping[str, Any]:
    """Return what was stored last."""
    doc = call.tx.get(_PREFERENCES, call.who.user)
    return {"preferences": doc["value"] if doc else {}}


def set_preferences(call: Call) -> Mapping[str, Any]:
    """Store preferences."""
    value = call.params["preferences"]
    call.tx.put(_PREFERENCES, {"id": call.who.user, "value": value})
    return {"updated": 1, "fields": {"preferences": value}}


USER_ROUTES = (
    Route(name="auth.create_credentials", handler=create_credentials),
    Route(name="auth.validate_token", handler=validate_token),
    Route(name="login.supported_modes", handler=supported_modes, public=True),
    Route(name="users.get_current_user", handler=current_user),
    Route(name="users.get_all", handler=list_users),
    Route(name="users.get_preferences", handler=get_preferences),
    Route(
        name="users.set_preferences",
        handler=set_preferences,
        fields=(mapping("preferences", required=True),),
    ),
)
