"""train(config, speech, stretch, report) -> Result. Read train.py first.

train.py drives state.py, which holds model, optimizer and batches between two steps; step.py computes one of them,
optim/ has AdamW, its learning rates and the average of the weights. saving.py decides what is worth a checkpoint,
checkpoint_writer.py copies and writes it beside the training, checkpoints.py and tensor_file.py have the files.
micro_batch.py finds the largest batch that fits in memory, kept_models.py has the models that were loaded before,
tensorboard.py the log.
"""
