"""A dataset's name -> clips and locked splits, without torch. Read corpus.py first, then splits.py.

sources.py finds the dataset and hands it to audiofolder.py or arrow.py; both read rows by columns.py.
"""
