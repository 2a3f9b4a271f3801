"""Losses; one file each."""
