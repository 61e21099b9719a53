"""A Hopper GPU played on a CPU build of torch: launches, modelled device time, bytes, host waits. Read meter.py first.

guard.load() must be called before anything imports torch. Nothing that this package says was measured on a GPU.
"""
