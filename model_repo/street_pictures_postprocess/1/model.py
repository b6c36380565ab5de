"""Triton's python backend takes the class from here."""

from .runtime.triton_postprocess import TritonPythonModel as TritonPythonModel
