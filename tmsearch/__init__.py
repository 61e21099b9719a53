"""Finds the best fine-tuning recipe of Whisper for throat-microphone speech."""

__version__ = "0.1.0"
