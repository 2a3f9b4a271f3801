"""From several modalities to one state per utterance; one file each."""
