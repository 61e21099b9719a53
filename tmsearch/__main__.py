"""`python -m tmsearch` is `tmsearch`: what lies in the working folder is no part of it."""

import os
import sys

if __name__ == "__main__":
    if not sys.flags.safe_path and sys.path[0] != os.path.dirname(os.path.dirname(os.path.abspath(__file__))):
        del sys.path[0]  # the working folder, where a person's own search.py may lie
    from tmsearch.cli.main import main

    sys.exit(main())
