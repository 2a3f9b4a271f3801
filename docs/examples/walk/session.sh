python walk.py
