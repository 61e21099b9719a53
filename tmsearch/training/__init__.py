"""train(config, speech, stretch, report) -> Result. Read train.py first.

train.py drives state.py, which holds model, optimizer and batches between two steps; step.py computes one of them,
optimizer.py has the learning rates, checkpoints.py the files, micro_batch.py the largest batch that fits in memory,
tensorboard.py the log.
"""
