"""Logs of hand-run trainings. Read hand_runs.py first."""
