"""What comes from elsewhere (datasets, cards, logs), read within bounds. Read plain_files.py first."""
