"""A terminal or pipe that takes ASCII alone gets text: no traceback, valid JSON, a whole recipe."""

import json
import subprocess
import sys

from tests.support.command import ROOT

PROGRAM = """
from tmsearch.cli.view import terminal
terminal.replace_unprintable()
print("हिन्दी naïve…", end=" ")
print("surrogate \\udcff")
"""


def run(program: str, encoding: str) -> bytes:
    environment = {"PYTHONIOENCODING": encoding, "PYTHONPATH": str(ROOT), "PATH": ""}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, timeout=60)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout


def test_what_an_ascii_terminal_lacks_is_replaced():
    assert run(PROGRAM, "ascii") == rb"\u0939\u093f\u0928\u094d\u0926\u0940 na\xefve~ surrogate \udcff" + b"\n"
    assert run(PROGRAM, "utf-8").decode() == "हिन्दी naïve… surrogate \\udcff\n"


def test_json_is_whole_in_any_encoding():
    program = "from tmsearch.cli.view import terminal; terminal.print_json({'text': 'हिन्दी'})"
    for encoding in ("ascii", "latin-1", "utf-8"):
        assert json.loads(run(program, encoding).decode(encoding)) == {"text": "हिन्दी"}


def test_a_printed_recipe_is_utf_8_as_its_file():
    program = "from tmsearch.cli.view import terminal; terminal.print_file('dataset: हिन्दी\\n')"
    assert run(program, "ascii").decode("utf-8") == "dataset: हिन्दी\n"
