"""A file that a person named: written as a whole, or one line that says why not."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from search.errors import UserError
from search.space.errors import printable
from tmsearch.files import write_atomically


def write_output(file: Path, content: str | Iterable[bytes], option: str = "-o", *, make_folder: bool = False) -> None:
    """Write `content`, text or pieces, to `file`, which `option` named.

    Raises:
        UserError: that fails, as on a full disk.
    """
    try:
        if make_folder:
            file.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(file, content)
    except OSError as error:
        message = f"{option} {printable(str(file))}: cannot be written: {error.strerror}; name another file"
        raise UserError(message) from None
