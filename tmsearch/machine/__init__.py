"""What this machine has for a training, to be read and pasted into an issue. Read survey.py first."""
