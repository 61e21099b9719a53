"""The embedded demo: a corpus of filtered speech, two small Whispers, and the programs that made them.

    corpus/  radio phrases by espeak-ng through a throat filter, in the folder format: audio and metadata.csv
    micro/   a multilingual Whisper of the stock layout, 4 s of context, pre-trained on clean speech only
    nano/    the same with fewer and narrower layers, so that a search has two model sizes to choose from

Read make.py first: `python -m tmsearch.demo.make` writes the three folders from nothing, by a seeded grammar,
espeak-ng's formant voices and pre-training from random weights. Nothing here is a recording of a person. A program's
licence (espeak-ng: GPL-3) does not extend to its output, so corpus and weights are under this project's own licence.
"""
