"""The space file: text -> a frozen Space. Read search_space.py first, then parsing.py."""
