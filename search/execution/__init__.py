"""Workers: claim, train in a subprocess, renew, commit. Read worker.py first, then lease.py."""
