"""WER and CER, intervals, comparisons. Read evaluate.py first.

evaluate.py turns clips into scores.py's records, error_rates.py compares their texts; bootstrap.py has the statistics,
student.py one of its quantiles, comparison.py the verdict of confirm.
"""
