"""Whisper: loaded, adapted, run forward, decoded. Read whisper.py first, then forward.py and attention.py."""
