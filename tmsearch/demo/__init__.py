"""The embedded demo: a corpus of filtered speech, two micro Whispers, and how all of it was made.

    corpus/  radio phrases by espeak-ng through a throat filter, in the folder format: audio and metadata.csv
    micro/   a multilingual Whisper of the stock layout, 4 s of context, pre-trained on clean speech only
    nano/    the same with fewer and narrower layers, so that a search has two model sizes to choose from

Nothing here is a recording of a person. `python -m tmsearch.demo.make` writes the three folders from nothing: a
seeded grammar, espeak-ng's formant voices, and pre-training from random weights. A program's licence (espeak-ng: GPL-3)
does not reach what it is made to say, so corpus and weights are under this project's own licence.
"""

from pathlib import Path

FOLDER = Path(__file__).parent
CORPUS = FOLDER / "corpus"
MODELS = ("micro", "nano")
