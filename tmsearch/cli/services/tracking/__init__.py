"""Keeps the trackers of a study or a final training up to date. Read follower.py first, then study_runs.py."""
