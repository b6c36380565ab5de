"""Events: what tasks and models report while they run, and how it is read back."""
