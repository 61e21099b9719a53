"""Exit codes of `tmsearch`, which whoever started a worker reads."""

DONE = 0
FAILED = 1  # RunError: the run failed through no fault of its input
BAD_INPUT = 2  # UserError
MACHINE = 3  # MachineError, of `tmsearch worker` alone: this machine cannot go on, another may
INTERRUPTED = 130  # by Ctrl-C or a signal, everything is saved; 128 + SIGINT, as shells have it
