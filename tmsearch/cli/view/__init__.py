"""How a study looks on a terminal. Read progress.py first."""
