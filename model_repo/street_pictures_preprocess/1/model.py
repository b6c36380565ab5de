"""Triton's python backend takes the class from here."""

from .runtime.triton_preprocess import TritonPythonModel as TritonPythonModel
