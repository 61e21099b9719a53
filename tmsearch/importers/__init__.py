"""Logs of hand-run trainings. Read record.py first (what a log becomes), then hand_runs.py."""
