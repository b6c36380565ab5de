"""Credentials and tokens; users and their preferences."""
