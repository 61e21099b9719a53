"""train(config, speech, stretch, report) -> Result. Read train.py first.

train.py drives state.py, which holds model, optimizer and batches between two steps; optimizer.py has the learning
rates, checkpoints.py the files, micro_batch.py what fits in memory, tensorboard.py the log.
"""
