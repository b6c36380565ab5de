"""From a trained model to a promoted version as a ClearML pipeline, each step a task of its own."""
