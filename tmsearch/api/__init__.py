"""The Python API, with the commands' own nouns. Read search.py first, then study.py."""
