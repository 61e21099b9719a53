"""train(config, speech, stretch, report) -> Result. Read train.py first.

train.py drives state.py, which holds model, optimizer and batches between two steps; step.py computes one of them,
optimizer.py has the learning rates, checkpoints.py the files, micro_batch.py the largest batch that fits in memory,
kept_models.py the models that were loaded before, tensorboard.py the log.
"""
