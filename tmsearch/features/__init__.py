"""Clips -> log-mels, augmented, in batches. Read dataset.py first, then log_mel.py."""
