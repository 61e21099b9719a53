"""A training step's kernels on a GPU: fused.py first; what they compute, and the weights that they take."""
