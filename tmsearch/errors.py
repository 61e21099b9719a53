"""What a person can get wrong about data, models and files."""


class InputError(Exception):
    """A person's mistake: one line that names file, key and fix. The command exits with 2."""
