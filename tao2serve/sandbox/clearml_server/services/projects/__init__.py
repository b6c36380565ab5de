"""Projects: a tree of names, and what they contain."""
