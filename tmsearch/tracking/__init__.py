"""Trials mirrored to Trackio, Weights & Biases or MLflow. Read tracker.py first, then mirror.py."""
