"""Studies that nobody trained: made through the ledger, with made-up results."""

from search import study
from search.process_id import ProcessId
from search.space import search_space as spaces
from search.storage.database import open_storage
from tmsearch.cli.services.knobs import DATA, TRAIN

MANY = """
study: many
data: {dataset: demo}
budget: {max_steps: 800, rungs: [100, 200, 400, 800]}
search:
  model: [openai/whisper-small, openai/whisper-large-v3, me/a-model-whose-name-is-much-longer-than-any-column-should-be]
  learning_rate: {low: 1e-6, high: 5e-5, log: true}
  warmup_steps: {low: 0, high: 100, step: 10}
  normalize_audio: [true, false]
  label_smoothing: {low: 0.0, high: 0.15}
  spec_time_masks: [0, 2]
"""
CLIPS = 150
ME = ProcessId.current()


def params_of(number):
    models = [
        "openai/whisper-small", "openai/whisper-large-v3",
        "me/a-model-whose-name-is-much-longer-than-any-column-should-be",
    ]  # fmt: skip
    return {
        "model": models[number % 3], "learning_rate": 1e-6 * (1 + number % 49), "warmup_steps": 10 * (number % 11),
        "normalize_audio": number % 2 == 0, "label_smoothing": 0.15 * number / 200, "spec_time_masks": 2 * (number % 2),
    }  # fmt: skip


def made(folder, trials, results=None):
    """A study of so many configurations, run to its end or until there are so many `results`; one is left at work."""
    (folder / "many.yaml").write_text(MANY)
    space = spaces.load(folder / "many.yaml", train=TRAIN, data=DATA)
    storage = open_storage(f"sqlite:///{folder}/studies/tmsearch.db")
    known = {"data": {"clips": CLIPS}, "words:0": [8] * CLIPS}
    known["baseline:openai/whisper-small"] = {"wer": 0.8, "errors": [6, 7] * (CLIPS // 2)}
    ledger = study.create(storage, space, seed=0, trials=trials, version="test", facts=known)
    scheduler_config, done = space.budget.scheduler_config, 0
    while (claim := ledger.claim(ME, scheduler_config)) is not None:
        params = params_of(claim.number)
        ledger.set_params(claim, params, params, "sampled")
        if done == results:
            ledger.sign_in(ME, "GPU 0", "test")
            ledger.renew(claim, {"event": "progress", "step": claim.first_step + 7, "loss": 1.25, "seconds": 0.5})
            break
        answered(ledger, scheduler_config, claim)
        done += 1
    return ledger, scheduler_config


def answered(ledger, scheduler_config, claim):
    """Commit a made-up result; every 25th configuration diverges instead."""
    if claim.number % 25 == 24:
        return ledger.fail(claim, "diverged", "the loss is not finite")
    errors = [(claim.number * 7 + clip) % 5 + (claim.last_step < 800) for clip in range(CLIPS)]
    metrics = {"train_seconds": 1.0 * (claim.last_step - claim.first_step), "eval_seconds": 9.5}
    metrics |= {"errors": errors, "clips": CLIPS}
    return ledger.commit(claim, sum(errors) / (8 * CLIPS), metrics, scheduler_config)
