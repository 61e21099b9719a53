"""A dataset's name -> clips and locked splits, without torch. Read corpus.py first, then splits.py."""
