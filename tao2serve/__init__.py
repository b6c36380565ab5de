"""TAO-trained detectors, from ClearML to a verified, load-tested endpoint on Triton and ClearML Serving."""

__version__ = "0.1.0"
