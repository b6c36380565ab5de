"""Start the server: ``python -m tao2serve.sandbox.clearml_server --data DIR --credentials FILE``."""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from .server import API_LIMIT_BYTES, FILES_LIMIT_BYTES, Settings, StartError, serve
from .services.auth.tokens import Credentials

_MEBIBYTE = 2**20
_KEYS = ("CLEARML_API_ACCESS_KEY", "CLEARML_API_SECRET_KEY")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tao2serve.sandbox.clearml_server",
        description="A ClearML-compatible API and file server on loopback.",
    )
    parser.add_argument("--data", type=Path, required=True, help="folder for the database and the files")
    parser.add_argument(
        "--credentials",
        type=Path,
        help="JSON file (mode 0600) with access_key and secret_key; default: " + " and ".join(_KEYS),
    )
    parser.add_argument("--host", default="127.0.0.1", help="loopback address (default: %(default)s)")
    parser.add_argument("--api-port", type=int, default=0, help="0 chooses a free one")
    parser.add_argument("--files-port", type=int, default=0, help="0 chooses a free one")
    parser.add_argument("--api-limit-mib", type=int, default=API_LIMIT_BYTES // _MEBIBYTE, help="largest API body")
    parser.add_argument("--files-limit-mib", type=int, default=FILES_LIMIT_BYTES // _MEBIBYTE, help="largest upload")
    return parser


def read_credentials(path: Path | None, environ: Mapping[str, str]) -> Credentials:
    """Read the keys from a private file, or from the environment."""
    if path is None:
        access, secret = (environ.get(name, "") for name in _KEYS)
    else:
        try:
            if path.stat().st_mode & 0o077:
                raise StartError(f"{path} can be read by others; chmod 600 it")
            content = json.loads(path.read_text())
            access, secret = str(content["access_key"]), str(content["secret_key"])
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise StartError(f"{path} does not hold access_key and secret_key") from error
    if not access or not secret:
        raise StartError("no credentials: give --credentials FILE or set " + " and ".join(_KEYS))
    return Credentials(access_key=access, secret_key=secret)


def main(argv: Sequence[str] | None = None) -> int:
    """Serve until told to end; 2 when the server cannot start."""
    options = _parser().parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    try:
        serve(
            Settings(
                data=options.data,
                credentials=read_credentials(options.credentials, os.environ),
                host=options.host,
                api_port=options.api_port,
                files_port=options.files_port,
                api_limit_bytes=options.api_limit_mib * _MEBIBYTE,
                files_limit_bytes=options.files_limit_mib * _MEBIBYTE,
            )
        )
    except StartError as error:
        sys.stderr.write(f"clearml sandbox server: {error}\n")
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
