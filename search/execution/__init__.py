"""Workers: claim a segment, train it in a subprocess, renew the lease, commit. Read worker.py first, then lease.py.

messages.py and wire.py are what supervisor and training process say to each other; worker_pool.py and launchers/ run
several workers.
"""
