"""Endpoints as serving containers report them."""
