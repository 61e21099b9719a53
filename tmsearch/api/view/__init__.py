"""What a notebook shows of a study: HTML, curves, the live table. Read notebook.py first."""
