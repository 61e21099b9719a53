"""One trial = one fine-tune: the training process's side of the seam. Read __main__.py first, then jobs.py."""
