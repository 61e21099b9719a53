"""The base of this package's errors, and what a person can get wrong about data, models and files."""


class TmsearchError(Exception):
    """Any error that this package raises on purpose."""


class InputError(TmsearchError):
    """A person's mistake: one line that names file, key and fix. The command exits with 2."""
