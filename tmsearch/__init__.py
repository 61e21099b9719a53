"""Finds the best fine-tuning recipe of Whisper for throat-microphone speech."""

__version__ = "0.2.0"
