"""What all tests need of the process that they run in."""

import signal

# A shell starts what it puts in the background deaf to Ctrl-C, and every program that a test starts would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)
