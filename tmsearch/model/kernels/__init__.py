"""A training step's kernels on a GPU: fused.py first; what they compute, the weights they take, and where those lie."""
