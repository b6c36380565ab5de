"""Models side by side: how good, how large, and how fast on this machine."""
