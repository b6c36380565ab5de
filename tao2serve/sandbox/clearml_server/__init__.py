"""A ClearML-compatible server for one machine: API and file server on loopback, state in SQLite.

It is written from recorded exchanges with ClearML clients, not from ClearML's server code, and imports
nothing of tao2serve outside this folder: only the real SDK and the real clearml-serving judge it.
Start it with ``python -m tao2serve.sandbox.clearml_server --help``.
"""
