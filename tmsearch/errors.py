"""The application's errors: their base, and those that more than one package raises."""


class TmsearchError(Exception):
    """Base of every error that tmsearch itself raises."""


class InputError(TmsearchError):
    """A person's mistake in data, models or files: one line that names file, key and fix. The command exits with 2."""


class CheckpointError(TmsearchError):
    """A checkpoint that is cut, altered, or of another training: its folder and what is wrong."""
