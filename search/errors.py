"""What goes wrong, by whose fault: a person's input or the run itself."""


class UserError(Exception):
    """A person's mistake: one line that names file, key and fix. The command exits with 2."""


class RunError(Exception):
    """The run failed through no fault of its input: one line. The command exits with 1."""


class StorageUnavailableError(RunError):
    """The database did not answer, or gave this transaction up: what asked may ask again."""
