"""Pictures, sounds and notes of a trial. Read trial_files.py first."""
