"""Conversations: containers, importers, checks, splits, batches, and synthetic dialogues."""
