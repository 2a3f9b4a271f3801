"""Result files, statistics over seeds and dialogues, and reports."""
