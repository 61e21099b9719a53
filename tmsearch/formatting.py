"""How long something takes, as a person reads it."""


def clock_time(seconds: float) -> str:
    """Seconds as 0:42 or 1:02:03."""
    minutes, left = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{left:02d}" if hours else f"{minutes}:{left:02d}"
