"""Strategies that keep one modality from drowning out the others; one file each."""
