"""Where the embedded corpus and models are, for whatever takes `demo` or `demo/NAME` for a name."""

from pathlib import Path

DEMO = Path(__file__).parent
CORPUS = DEMO / "corpus"
MODELS = ("micro", "nano")
