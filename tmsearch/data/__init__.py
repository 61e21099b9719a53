"""A dataset's name -> clips and locked splits, without torch. Read corpus.py first, then splits.py.

sources.py finds the dataset and hands it to audiofolder.py or arrow.py; both read rows by columns.py.
"""

import sys

from tmsearch import CallablePackage

sys.modules[__name__].__class__ = CallablePackage  # `tmsearch.data("recordings/")` describes a dataset
