"""Importers: one file each."""
