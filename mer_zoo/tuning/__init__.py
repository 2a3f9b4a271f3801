"""Searching settings and parts of a recipe on validation dialogues; test dialogues are out of reach."""
