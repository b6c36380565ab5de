"""Queues: tasks in line for agents."""
