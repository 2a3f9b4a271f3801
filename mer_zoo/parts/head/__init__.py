"""From states to logits; one file each."""
