"""Weights on the edges of a graph; one file each."""
