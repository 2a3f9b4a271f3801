"""From a model and dialogues to a result."""
