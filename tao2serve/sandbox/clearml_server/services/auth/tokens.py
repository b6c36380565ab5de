"""Who may call: one pair of keys, and bearer tokens signed with a key that stays in the data folder."""

from __future__ import annotations

import base64
import binascii
import hmac
import secrets
import time
from dataclasses import dataclass
from pathlib import Path

import jwt

from ...durable import write_private
from .errors import invalid_token, missing_credentials, unknown_credentials

API_VERSION = "2.34"
SERVER_VERSION = "2.3.0"
_ALGORITHM = "HS256"
_LIFETIME_S = 30 * 24 * 3600
_KEY_BYTES = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class Credentials:
    """The access and secret key; neither shows in a representation."""

    access_key: str
    secret_key: str

    def __repr__(self) -> str:
        return "Credentials(…)"


def load_signing_key(data: Path) -> bytes:
    """Return this server's signing key, made (mode 0600) on the first start; a key that is cut off is made anew."""
    path = data / "signing.key"
    if not path.is_file() or path.stat().st_size != _KEY_BYTES:
        write_private(path, secrets.token_bytes(_KEY_BYTES))
    return path.read_bytes()


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Gate:
    """Lets calls in: basic credentials or a valid bearer token."""

    credentials: Credentials
    key: bytes
    user: str
    company: str

    def issue(self, expiration_s: int | None = None) -> str:
        """Return a fresh token; clients read the versions out of it without verifying it."""
        now = int(time.time())
        lifetime = expiration_s if expiration_s and 0 < expiration_s < _LIFETIME_S else _LIFETIME_S
        claims = {
            "auth_type": "Bearer",
            "identity": {"user": self.user, "company": self.company, "role": "user"},
            "iat": now,
            "exp": now + lifetime,
            "api_version": API_VERSION,
            "server_version": SERVER_VERSION,
            "server_build": "",
            "feature_set": "basic",
        }
        return jwt.encode(claims, self.key, algorithm=_ALGORITHM)

    def check(self, authorization: str) -> None:
        """Raise 401 unless the header carries our credentials or our token."""
        scheme, _, value = authorization.partition(" ")
        if scheme.lower() == "basic":
            self._check_basic(value.strip())
        elif scheme.lower() == "bearer":
            self._check_token(value.strip())
        else:
            raise missing_credentials()

    def _check_basic(self, value: str) -> None:
        try:
            access, _, secret = base64.b64decode(value, validate=True).decode().partition(":")
        except (binascii.Error, UnicodeDecodeError) as error:
            raise missing_credentials() from error
        known = hmac.compare_digest(access.encode(), self.credentials.access_key.encode())
        if not (hmac.compare_digest(secret.encode(), self.credentials.secret_key.encode()) and known):
            raise unknown_credentials()

    def _check_token(self, value: str) -> None:
        try:
            jwt.decode(value, self.key, algorithms=[_ALGORITHM])
        except jwt.InvalidTokenError as error:
            raise invalid_token(str(error)) from error
