"""Tasks: their fields, the moves between states, artifacts, models, deletion."""
