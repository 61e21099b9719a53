"""What a dataset is like before anything trains on it. Read summary.py first."""
