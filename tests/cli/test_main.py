"""The program as a process: what only a process can show."""

import subprocess
import sys

import pytest

from tests.support.command import environment


@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-"])
def test_closed_streams_take_what_is_printed(tmp_path, closed):
    command = f'exec "$0" -m tmsearch list --storage sqlite:///{tmp_path}/none.db {closed}'
    done = subprocess.run(
        ["bash", "-c", command, sys.executable], env=environment(tmp_path), cwd=tmp_path, capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (0, "")
