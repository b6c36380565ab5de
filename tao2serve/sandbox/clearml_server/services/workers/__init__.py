"""Workers: agents that say they are there."""
