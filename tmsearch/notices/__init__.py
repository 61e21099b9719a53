"""A few words to a person who has left, by a webhook or on the desktop. Read channel.py first."""
