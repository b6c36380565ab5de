"""The organization: what lies across projects."""
