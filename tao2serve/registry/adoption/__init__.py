"""A finished training put into ClearML as if TAO had been tracked: what is chosen, what is there, what is sent."""
