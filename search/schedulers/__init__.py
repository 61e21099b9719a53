"""Which trial trains next, pauses, is pruned or has finished. Read scheduler.py first.

scheduler.py holds the decisions that all strategies share; asha.py, planned.py (halving by a plan), optuna_pruners.py
and racing.py are the strategies; extrapolation.py says where a curve that ended early would end;
paired_test.py compares two trials clip by clip; eta.py estimates the time left.
"""
