"""`tao2serve config`: the settings in effect, and what settings there are."""

from __future__ import annotations

import typer

from tao2serve.cli.options import Json, TunedFile
from tao2serve.cli.output import print_json, print_text

app = typer.Typer(
    rich_markup_mode=None,
    no_args_is_help=True,
    help="The settings in effect, and what settings there are.\n\nExample: tao2serve config show",
)


@app.command()
def show(tuned: TunedFile = None, json_output: Json = False) -> None:
    """Say each setting's value, and where it comes from.

    Example: tao2serve config show
    """
    from tao2serve.config import load_settings, origins
    from tao2serve.tuned import read_tuned

    proposed = read_tuned(tuned).settings if tuned is not None else None
    settings = load_settings(tuned=proposed).model_dump(mode="json")
    where = origins(tuned=proposed)
    if json_output:
        print_json({"settings": {name: {"value": value, "origin": where[name]} for name, value in settings.items()}})
        return
    rows = [(name, "" if value is None else str(value), where[name]) for name, value in settings.items()]
    widths = [max(len(row[column]) for row in rows) for column in (0, 1)]
    print_text("\n".join(f"{name:<{widths[0]}}  {value:<{widths[1]}}  {origin}" for name, value, origin in rows))


@app.command(short_help="Print the JSON schema of tao2serve.toml.")
def schema(json_output: Json = False) -> None:
    """Print the JSON schema of tao2serve.toml, for editors and checkers.

    Example: tao2serve config schema > tao2serve.schema.json
    """
    from tao2serve.config import Settings

    document = Settings.model_json_schema()
    document = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **document,
        "title": "tao2serve.toml",
        "additionalProperties": False,  # a line that is no setting is refused
    }
    print_json(document)  # with --json or without: it is JSON
