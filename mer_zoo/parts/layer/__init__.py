"""Layers that pass messages along the edges of a graph; one file each."""
