"""One file a command. Read run.py first."""
