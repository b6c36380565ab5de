"""Pipelines: controllers that are started from a finished one."""
