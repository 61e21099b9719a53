"""WER and CER, intervals, comparisons. Read evaluate.py first."""
