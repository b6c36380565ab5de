"""Execute a notebook cell by cell with a kernel of this Python, and write it with its outputs.

    python tests/run_notebook.py examples/detectnet_v2_to_endpoint.ipynb OUTPUT.ipynb

Runs in the current folder. The first cell that fails ends it, with the cell's error.
"""

from __future__ import annotations

import sys
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from traitlets.config import Config


def main(source: str, output: str) -> None:
    notebook = nbformat.read(source, as_version=4)
    client = NotebookClient(
        notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": str(Path.cwd())}},
        coalesce_streams=True, config=Config({"KernelManager": {"transport": "ipc"}}),  # files, no ports
    )  # fmt: skip
    client.execute()
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
    notebook.metadata["language_info"] = {"name": "python"}  # the kernel adds its version
    nbformat.write(notebook, output)


if __name__ == "__main__":
    main(*sys.argv[1:])
