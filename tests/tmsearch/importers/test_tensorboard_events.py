"""A training by its TensorBoard events, as Hugging Face's Trainer writes them."""

import json

from torch.utils.tensorboard import SummaryWriter

from tmsearch.importers import tensorboard_events


def test_scalars_and_the_arguments_of_trainer(tmp_path):
    arguments = {
        "learning_rate": 1e-5,
        "max_steps": 40,
        "warmup_steps": 4,
        "per_device_train_batch_size": 4,
        "gradient_accumulation_steps": 2,
        "lr_scheduler_type": "cosine",
        "seed": 7,
    }
    with SummaryWriter(str(tmp_path)) as writer:
        writer.add_text("args", json.dumps(arguments))
        for step, wer in ((20, 0.5), (40, 0.25)):
            writer.add_scalar("train/loss", 1.0, step)
            writer.add_scalar("eval/wer", wer, step)
    run = tensorboard_events.read(next(tmp_path.iterdir()))
    assert run.curve == ((20, 0.5), (40, 0.25))
    assert run.ending == "finished"
    assert run.params == {
        "learning_rate": 1e-5,
        "max_steps": 40,
        "warmup_steps": 4,
        "batch_size": 8,
        "schedule": "cosine",
        "seed": 7,
    }
