"""From raw utterances to feature vectors; one file each."""
