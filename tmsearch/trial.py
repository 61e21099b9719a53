"""One trial = one fine-tune: the child's side of the seam."""

from __future__ import annotations

import dataclasses
import os
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tmsearch import wire
from tmsearch.config import DataConfig, TrainConfig
from tmsearch.errors import InputError
from tmsearch.recipe import keep_recipe, recipe_of
from tmsearch.wire import Say

if TYPE_CHECKING:
    from tmsearch.clips import Corpus
    from tmsearch.speech import Speech
    from tmsearch.training import Progress, Result
    from tmsearch.warm import Warm



class Bench:
    """What stays warm between jobs: the corpus, decoded; the model."""

    def __init__(self) -> None:
        self._corpora: dict[DataConfig, Corpus] = {}
        self._warm: Warm | None = None

    @property
    def warm(self) -> Warm:
        """The last model and its run."""
        from tmsearch.warm import Warm

        self._warm = self._warm or Warm()
        return self._warm

    def corpus(self, data: DataConfig) -> Corpus:
        """Loaded once; a child works on one study."""
        from tmsearch import clips

        if data not in self._corpora:
            self._corpora[data] = clips.load(data)
        return self._corpora[data]

    def speech(self, data: DataConfig, known: Mapping[str, Any], cache: Path) -> Speech:
        """The study's speech with the study's own split; raises InputError where the data is no longer the same."""
        from tmsearch.speech import Speech
        from tmsearch.splits import Split, folded

        corpus = self.corpus(dataclasses.replace(data, fold=0))
        if corpus.fingerprint != known["fingerprint"]:
            raise InputError(
                f"data.dataset: {data.dataset} changed since the study began ({known['clips']} clips then, "
                f"{len(corpus.clips)} now); pin data.revision, put the old files back, or start --study NEW"
            )
        split = Split.from_json(known["split"])
        split = folded(split, corpus, data) if data.fold else split
        return Speech(corpus, split, data.language, data.task, cache)


def check(bench: Bench, job: Mapping[str, Any], say: Say) -> dict[str, Any]:
    """Load the data and look at the models before anything is written; what the study keeps of both."""
    from tmsearch import contexts, cost, model, splits

    data = DataConfig(**job["data"])
    corpus = bench.corpus(data)
    split = splits.split(corpus, data)
    models = {}
    seconds = [clip.seconds for clip in corpus.clips]
    for params in job["candidates"]:
        config = TrainConfig(**params)
        facts = model.describe(config.model, config.model_revision)
        rule = contexts.contexts(config, facts.context_seconds, max(seconds))
        _fits(corpus, rule.seconds, config.model)
        estimate = cost.estimate(facts, config, seconds=rule.mean_seconds(seconds))
        # Weights and AdamW's two moments, float32; adapters take less.
        saved = 3 * 4 * facts.parameters
        models[config.model] = {
            **dataclasses.asdict(facts), **dataclasses.asdict(estimate), "checkpoint_bytes": saved
        }
    known = {
        "fingerprint": corpus.fingerprint,
        "commit": corpus.commit,  # what a branch of the hub pointed at
        "clips": len(corpus.clips),
        "seconds": sum(clip.seconds for clip in corpus.clips),
        "longest": max(clip.seconds for clip in corpus.clips),
        "split": split.to_json(),
        "dropped": [dataclasses.asdict(one) for one in corpus.dropped],
    }
    rate = cost.matmul_rate(len(os.sched_getaffinity(0))) if job["measure"] else None
    return {"event": "checked", "data": known, "models": models, "flops_per_second": rate}


def _fits(corpus: Corpus, seconds: float, name: str) -> None:
    """Raise InputError where a clip is longer than the model hears: its text could not be learned."""
    long = [clip.name for clip in corpus.clips if clip.seconds > seconds + 0.01]
    if long:
        longest = max(clip.seconds for clip in corpus.clips)
        raise InputError(
            f"{name}: train.context_seconds: {len(long)} clips are longer than the {seconds:g} s that the model hears, "
            f"such as {long[0]}; the longest has {longest:.1f} s: raise it, or take another model, or drop them"
        )


def segment(bench: Bench, job: Mapping[str, Any], say: Say, stop: Callable[[], bool]) -> dict[str, Any]:
    """Train one stretch of one configuration and score it; the answer for the supervisor."""
    from tmsearch import checkpoints, claims, confirmed, devices
    from tmsearch.logbook import Logbook
    from tmsearch.scores import scores_file, write_scores

    recipe, folder = recipe_of(job), Path(job["folder"])
    config, data = recipe.train, recipe.data
    speech = bench.speech(data, job["facts"]["data"], Path(job["cache"]))
    keep_recipe(folder / "config.yaml", recipe)
    devices.settle(job["threads"])
    # Compiled graphs outlive the process that compiled them.
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(Path(job["cache"]) / "compiled"))
    _baseline(bench, config, speech, job["facts"], folder.parents[1], say)
    saved = folder / "checkpoints"
    found = claims.latest(saved, job["last_step"])
    begun = checkpoints.step_of(found) if found else 0
    with Logbook(Path(job["tensorboard"]) / folder.name, begun, job["params"], job.get("choices", {})) as logbook:

        def report(progress: Progress) -> None:
            logbook.progress(progress)
            say({"event": "progress", **dataclasses.asdict(progress)})

        result, clips = _trained(bench, config, speech, job, report, say, stop)
        metrics = {name: getattr(result, name) for name in ("wer", "wer_raw", "cer", "loops")}
        # What ended between this and its commit is done again, from its last checkpoint: its events are there.
        if begun < result.step or not scores_file(folder, result.step).is_file():
            logbook.rung(result.step, metrics, result.scores)
    claims.keep_only(saved, job["token"], result.step)
    if job.get("keep_weights") and result.step == config.max_steps:
        confirmed.keep(result.checkpoint, folder)
    write_scores(folder, result.step, result.scores)
    costs = {"train_seconds": result.train_seconds, "eval_seconds": result.eval_seconds, "micro_batch": clips}
    # By clip, in the split's order: what a paired comparison of two trials reads.
    errors = [score.edits for score in result.scores]
    words = f"words:{data.fold}"
    if words not in job["facts"]:
        say({"event": "fact", "key": words, "value": [score.words for score in result.scores]})
    metrics |= {**costs, "clips": len(errors), "errors": errors}
    return {"event": "result", "value": result.wer, "metrics": metrics}


def test(bench: Bench, job: Mapping[str, Any]) -> dict[str, Any]:
    """Score the kept model of one finished training on the locked test split."""
    from tmsearch import confirmed, devices

    recipe = recipe_of(job)
    devices.settle(job["threads"])
    speech = bench.speech(recipe.data, job["facts"]["data"], Path(job["cache"]))
    return confirmed.on_test(recipe.train, Path(job["folder"]), speech)


def _trained(
    bench: Bench,
    config: TrainConfig,
    speech: Speech,
    job: Mapping[str, Any],
    report: Callable[[Progress], None],
    say: Say,
    stop: Callable[[], bool],
) -> tuple[Result, int]:
    """The segment's training with as many clips a forward pass as memory takes, and how many: the study remembers."""
    from tmsearch import claims, fitting, training

    saved, key = Path(job["folder"]) / "checkpoints", fitting.key(config)
    clips = job["facts"].get(key)
    if clips is None:
        clips = fitting.find(config, speech, bench.warm)
        say({"event": "limit", "key": key, "value": clips})
    while True:
        stretch = training.Stretch(
            first_step=job["first_step"],
            last_step=job["last_step"],
            threads=job["threads"],
            micro_batch=clips,
            checkpoint=claims.latest(saved, job["last_step"]),
            save_to=claims.folder(saved, job["token"]),
            save_seconds=training.SAVE_SECONDS,
        )
        try:
            return training.train(config, speech, stretch, report, stop=stop, warm=bench.warm), clips
        except (RuntimeError, MemoryError) as error:
            if clips == 1 or not fitting.ran_out(error):
                raise
        # Out of the except block, whose error holds the tensors that there was no more room beside.
        bench.warm.forget()
        fitting.release()
        clips = fitting.halved(clips)
        say({"event": "limit", "key": key, "value": clips})


def _baseline(
    bench: Bench, config: TrainConfig, speech: Speech, facts: Mapping[str, Any], study_folder: Path, say: Say
) -> None:
    """Zero-shot WER of the untouched checkpoint at its full context, once a model and study."""
    from tmsearch import evaluation
    from tmsearch.scores import baseline_folder, write_scores

    key = f"baseline:{config.model}"
    if key in facts:
        return
    untouched = TrainConfig(
        model=config.model, model_revision=config.model_revision, eval_batch_size=config.eval_batch_size
    )
    scores = evaluation.zero_shot(untouched, speech, bench.warm.whisper(untouched))
    write_scores(baseline_folder(study_folder, config.model), 0, scores.clips)
    value = {
        "wer": scores.wer,
        "wer_raw": scores.wer_raw,
        "cer": scores.cer,
        "clips": len(scores.clips),
        "errors": [clip.edits for clip in scores.clips],
    }
    say({"event": "fact", "key": key, "value": value})


def answer(bench: Bench, job: Mapping[str, Any], say: Say, stop: Callable[[], bool]) -> Mapping[str, Any]:
    """The job's last word, failures by class among them."""
    from tmsearch import fitting
    from tmsearch.training import Diverged, Stopped

    try:
        if job["job"] == "check":
            return check(bench, job, say)
        if job["job"] == "test":
            return test(bench, job)
        return segment(bench, job, say, stop)
    except Stopped as stopped:
        return {"event": "stopped", "step": stopped.step}
    except Diverged as diverged:
        return {"event": "failure", "failure": "diverged", "reason": str(diverged)}
    except InputError as error:
        return {"event": "failure", "failure": "input", "reason": str(error)}
    except OSError as error:
        traceback.print_exc()
        return {"event": "failure", "failure": "disk", "reason": f"{error.strerror}: {error.filename}"}
    except Exception as error:
        if fitting.ran_out(error):
            return _out_of_memory(error)
        traceback.print_exc()
        said = str(error).splitlines()
        return {"event": "failure", "failure": "bug", "reason": f"{type(error).__name__}: {said[0] if said else ''}"}


def _out_of_memory(error: BaseException) -> Mapping[str, Any]:
    said = (str(error).splitlines() or [""])[0]
    reason = f"out of memory: {said}; low_memory needs half, a smaller micro_batch_size or context_seconds less"
    return {"event": "failure", "failure": "oom", "reason": reason}


def main() -> None:
    """Answer jobs from standard input until it closes."""
    bench = Bench()
    wire.serve(lambda job, say, stop: answer(bench, job, say, stop))


if __name__ == "__main__":
    main()
