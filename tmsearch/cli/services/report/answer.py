"""What a study says so far, for its report: the best against what is known, how sure, at what cost, what comes next."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from search import records
from search.records import Configuration
from search.storage.database import Storage
from search.study import Summary
from tmsearch.cli.services import verdicts
from tmsearch.cli.services.annotator import compared_with_default
from tmsearch.cli.services.recipes import finished_confirmation
from tmsearch.cli.view import intervals
from tmsearch.cli.view.format import model_of, rates_beside, short_value
from tmsearch.evaluation import bootstrap
from tmsearch.evaluation.comparison import Verdict, interval
from tmsearch.formatting import clock_time
from tmsearch.media import trial_note
from tmsearch.report.records import ReferenceScore, StudyAnswer, TrialRow
from tmsearch.trial.facts import CONFIRMS, StudyFacts


def answer(storage: Storage, summary: Summary, rows: Mapping[int, TrialRow]) -> StudyAnswer:
    """The first lines of a study's page; those of its confirmation among them where there is one.

    Args:
        storage: the studies'.
        summary: the study's.
        rows: the page's trials by number.
    """
    best = summary.best
    confirmed = None if _is_confirmation(summary) else finished_confirmation(storage, summary)
    without_best = StudyAnswer(
        best=None,
        headline="",
        references=_contender_means(summary),
        recipe=(),
        certainty=(*_certainty(summary, confirmed, best), *_beside(summary, best)),
        cost=_cost(summary, confirmed),
        commands=_commands(summary, confirmed),
    )
    if best is None:
        return without_best
    return dataclasses.replace(
        without_best,
        best=rows[best.number],
        headline=_best_sentence(summary, confirmed, best),
        references=(*_references(summary, best), *without_best.references),
        recipe=_recipe(summary, best),
    )


def _is_confirmation(summary: Summary) -> bool:
    return CONFIRMS in summary.facts


def _best_sentence(summary: Summary, confirmed: Summary | None, best: Configuration) -> str:
    sentence = f"Trial {best.number} at step {best.steps}, on the validation clips"
    if _is_confirmation(summary):
        return f"{sentence}: the lowest of a confirmation's trainings. What counts are the means over seeds, below."
    if best.steps < summary.record.space["budget"]["max_steps"]:
        return f"{sentence}; nothing was trained in full yet, so this is provisional."
    if not summary.has_ended:
        return f"{sentence}. The study has not ended: this is provisional."
    decision = verdicts.decide(confirmed) if confirmed is not None else None
    if decision is None or decision.arm.trial == best.number:
        return f"{sentence}."
    return f"{sentence}: the lowest of the search. The confirmation takes {decision.subject}: {decision.reason}."


def _beside(summary: Summary, best: Configuration | None) -> tuple[str, ...]:
    """The best's other rates."""
    if best is None:
        return ()
    rates = rates_beside(summary.record.objective, best.metrics).replace("  ", ", ")
    untouched = StudyFacts.from_json(summary.facts).kept.get(model_of(best))
    if untouched is not None and best.metrics.get("wer_keep") is not None:
        rates += f", where the untouched checkpoint has {untouched:.3f} on data.keep"
    return (f"Beside its {summary.record.measure}: {rates}.",)


def _contender_means(summary: Summary) -> tuple[ReferenceScore, ...]:
    """The recipes that a confirmation compares; none for another study."""
    if not _is_confirmation(summary):
        return ()
    compared = verdicts.contenders(summary)
    scores = []
    for contender in compared:
        if not contender.trainings:
            continue
        name = f"{contender.name} of the search"
        if contender.name == "default":
            name = "the default recipe"
        remark = "mean of " + ", ".join(f"{training.wer:.3f}" for training in contender.trainings)
        if contender.fate:
            remark += f"; {contender.fate}"
        bounds = intervals.bounds(interval(contender, compared))
        scores.append(ReferenceScore(name, verdicts.mean_wer(contender), bounds, remark))
    return tuple(scores)


def _references(summary: Summary, best: Configuration) -> tuple[ReferenceScore, ...]:
    """The zero-shot baseline and the default recipe, against which the best is held."""
    wer = best.value or 0.0
    model = model_of(best)
    facts = StudyFacts.from_json(summary.facts)
    scores = []
    baseline = facts.baselines.get(model)
    if baseline:
        bounds = intervals.bounds(intervals.baseline_interval(facts, model))
        name = f"untrained {short_value(model)} (zero-shot)"
        rate = baseline.rate(summary.record.objective)
        scores.append(ReferenceScore(name, rate, bounds, _change(wer, rate, summary.record.objective)))
    default = records.default_configuration(summary.history)
    if default is not None and default.number == best.number:
        scores.append(ReferenceScore("the default recipe", wer, None, "is the best itself"))
    elif default is not None:
        scores += _default_reference(facts, best, default, summary.record.objective)
    return tuple(scores)


def _default_reference(
    facts: StudyFacts, best: Configuration, default: Configuration, objective: str
) -> list[ReferenceScore]:
    """The default recipe at the last step where both were judged; none without one, as other steps do not compare.

    The words are those of the trials' notes.
    """
    compared = compared_with_default(facts, best, default)
    if compared is None:
        return []
    comparison, clip_counts = compared
    if clip_counts is not None:
        difference = bootstrap.paired_interval(*clip_counts)
        comparison = dataclasses.replace(comparison, interval=intervals.bounds(difference))
    name = "the default recipe"
    remark = f"trial {default.number}"
    if comparison.step != best.steps:
        name += f" at step {comparison.step}"
        remark += f", where trial {best.number} had {comparison.trial_wer:.3f}; later steps do not compare"
    change = _change(comparison.trial_wer, comparison.wer, objective)
    remark += f"; trial {best.number} on the same clips: {change}, {trial_note.verdict(comparison)}"
    bounds = intervals.bounds(intervals.interval(facts, default, comparison.step))
    return [ReferenceScore(name, comparison.wer, bounds, remark)]


def _change(wer: float, reference_wer: float, objective: str) -> str:
    if not reference_wer:
        return ""
    unit = "character" if objective == "cer" else "word"
    direction = "fewer" if wer <= reference_wer else "more"
    return f"{100 * abs(1 - wer / reference_wer):.0f} % {direction} {unit} errors"


def _recipe(summary: Summary, best: Configuration) -> tuple[tuple[str, str], ...]:
    """The best's knobs and values, the searched ones first."""
    params = best.params or {}
    searched = [name for name in summary.record.space["search"] if name in params]
    fixed = [name for name in params if name not in searched]
    return (
        *((name, _value(params[name])) for name in searched),
        *((f"{name} (fixed)", _value(params[name])) for name in fixed),
    )


def _value(value: Any) -> str:
    return str(value) if isinstance(value, str) else short_value(value)


def _certainty(summary: Summary, confirmed: Summary | None, best: Configuration | None) -> tuple[str, ...]:
    """Sentences on how sure it is that the best is better."""
    if _is_confirmation(summary):
        if not verdicts.race_of(summary).over:
            return ("The confirmation has not finished: nothing is known yet.",)
        result = verdicts.verdict(summary)
        if result is None:
            return ("No recipe can be compared.",)
        return _verdict_sentences(result)
    if confirmed is not None:
        result = verdicts.verdict(confirmed)
        assert result is not None
        sentences = list(_verdict_sentences(result))
        test_result = verdicts.verdict(confirmed, "test")
        if test_result:
            sentences.append(_capitalized(test_result.sentence()))
        decision = verdicts.decide(confirmed)
        assert decision is not None
        sentences.append(f"`tmsearch export` takes {decision.subject}.")
        return tuple(sentences)
    if best is None:
        return ("There is nothing to be sure of yet.",)
    if not summary.has_ended:
        return (
            "Provisional: the study has not ended, and another configuration may lead at its end.",
            "The interval is over utterances like these; what other seeds give comes on top.",
        )
    return (
        "Not confirmed: the lowest of many results looks better than it is, and nobody has trained it again.",
        "The interval is over utterances like these; what other seeds give comes on top.",
        f"tmsearch confirm {summary.record.name} trains the leaders and the default recipe again and says whether it "
        "is luck.",
    )


def _verdict_sentences(result: Verdict) -> tuple[str, str]:
    return _capitalized(result.sentence()), _capitalized(result.cross_check())


def _capitalized(text: str) -> str:
    return text[:1].upper() + text[1:]


def _cost(summary: Summary, confirmed: Summary | None) -> tuple[tuple[str, str], ...]:
    training = sum(trial.total("train_seconds") for trial in summary.history)
    evaluation = sum(trial.total("eval_seconds") for trial in summary.history)
    repeated = sum(trial.total("repeated_seconds") for trial in summary.history)
    rows = [("training", clock_time(training))]
    if repeated:
        rows.append(("trained again, not saved", clock_time(repeated)))
    rows += [("evaluation", clock_time(evaluation))]
    if summary.saved:
        share = summary.saved / (summary.saved + summary.spent)
        rows.append(("saved by pruning", f"{clock_time(summary.saved)} ({100 * share:.0f} %)"))
    if confirmed is not None:
        rows.append(("confirmation", clock_time(confirmed.spent)))
    return tuple(rows)


def _commands(summary: Summary, confirmed: Summary | None) -> tuple[tuple[str, str], ...]:
    """The two commands that come next, and what each does."""
    name = summary.record.name
    if _is_confirmation(summary):
        parent = StudyFacts.from_json(summary.facts).plan.of
        if not verdicts.race_of(summary).over:
            return (
                (f"tmsearch confirm {parent}", "continues it"),
                (f"tmsearch report {parent}", "the search itself"),
            )
        return (
            (f"tmsearch export {parent} -o best.yaml", f"takes {_subject(summary)}"),
            (f"tmsearch confirm {parent} --test", "the locked test split, once"),
        )
    if not summary.has_ended:
        return (
            (f"tmsearch status {name}", "its progress"),
            (f"tmsearch resume {name}", "continues it, if no worker runs"),
        )
    if confirmed is None:
        return (
            (f"tmsearch confirm {name}", "is the winner real?"),
            (f"tmsearch export {name} -o best.yaml", "the best as a recipe, with its evidence"),
        )
    return (
        (f"tmsearch export {name} -o best.yaml", f"takes {_subject(confirmed)}, with its evidence"),
        ("tmsearch train best.yaml", "the final model and its card"),
    )


def _subject(confirmed: Summary) -> str:
    """The recipe that a confirmation takes, in words."""
    decision = verdicts.decide(confirmed)
    return "the best of the search" if decision is None else decision.subject
