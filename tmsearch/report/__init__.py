"""The HTML page of a study or a dataset, one file that needs no network. Read page.py first."""
