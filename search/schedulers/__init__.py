"""Which configuration trains next, pauses or ends: pure functions of the history. Read scheduler.py first."""
