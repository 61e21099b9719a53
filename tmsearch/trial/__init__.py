"""One trial = one fine-tune: the training process's side of the seam. Read __main__.py first, then jobs.py.

facts.py and settings.py are read by the command line as well: what a study knows, and what every job has in common.
"""
