"""Every error of the engine, by whose fault it is: a person's input, the run itself, or the database."""


class EngineError(Exception):
    """Base of all errors that `search` raises."""


class UserError(EngineError):
    """A person's mistake: one line that names file, key and fix. The command exits with 2."""


class RunError(EngineError):
    """The run failed through no fault of its input: one line. The command exits with 1."""


class RepeatedDrawError(EngineError):
    """Another worker drew the same values meanwhile: draw again, from the history as it is now."""


class StorageUnavailableError(RunError):
    """The database did not answer, or it cancelled this transaction; the caller may try again."""


def first_line(error: BaseException) -> str:
    """The first line of the error's text; its class where it has none."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
