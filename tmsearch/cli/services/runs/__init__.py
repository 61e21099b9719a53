"""What takes hours, by a command or by the Python API: a search, a confirmation. Read search.py first."""
