"""Trackers: what tells others of finished runs."""
