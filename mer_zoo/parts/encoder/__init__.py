"""Encoders: states in, states out, without a graph; one file each."""
