"""WER and CER, intervals, comparisons. Read evaluate.py first.

evaluate.py turns clips into scores.py's records, whose texts error_rates.py compares; bootstrap.py has the statistics, comparison.py the verdict of confirm.
"""
