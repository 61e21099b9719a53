"""What is trained on beside a dataset, never scored on: extra speech, noise. Read extra_data.py first."""
