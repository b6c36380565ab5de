"""The parts of a deployment: what it is made from, where it lives, what can be reused, what ClearML is told of it."""
