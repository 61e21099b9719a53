"""What a study says so far, for its report: the best against what is known, how sure, at what cost, what comes next."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from search import records
from search.records import Configuration
from search.schedulers import paired_test, racing
from search.storage.database import Storage
from search.study import Summary
from tmsearch.cli.services import verdicts
from tmsearch.cli.services.recipes import chosen, confirmation
from tmsearch.cli.view import intervals
from tmsearch.cli.view.format import model_of, short_value
from tmsearch.evaluation.comparison import interval
from tmsearch.formatting import clock_time
from tmsearch.report.records import ReferenceScore, StudyAnswer, TrialRow
from tmsearch.trial.facts import CONFIRMS, StudyFacts


def answer(storage: Storage, summary: Summary, rows: Mapping[int, TrialRow]) -> StudyAnswer:
    """The study's, or its confirmation's where there is one."""
    best = summary.best
    confirmed = None if _is_confirmation(summary) else confirmation(storage, summary)
    return StudyAnswer(
        best=rows[best.number] if best else None,
        headline=_what(summary, best) if best else "",
        references=(*(_against(summary, best) if best else ()), *_means(summary)),
        recipe=_recipe(summary, best) if best else (),
        certainty=_sure(summary, confirmed, best),
        cost=_cost(summary, confirmed),
        commands=_commands(summary, confirmed),
    )


def _is_confirmation(summary: Summary) -> bool:
    return CONFIRMS in summary.facts


def _what(summary: Summary, best: Configuration) -> str:
    where = f"Trial {best.number} at step {best.steps}, on the validation clips"
    if _is_confirmation(summary):
        return f"{where}: the lowest of a confirmation's trainings. What counts are the means over seeds, below."
    early = best.steps < summary.record.space["budget"]["max_steps"]
    return f"{where}{'; nothing was trained in full yet' if early else ''}."


def _means(summary: Summary) -> tuple[ReferenceScore, ...]:
    """A confirmation's recipes; none of another study."""
    if not _is_confirmation(summary):
        return ()
    recipes, found = verdicts.recipes(summary), []
    for one in recipes:
        if one.trainings:
            mean = sum(each.wer for each in one.trainings) / len(one.trainings)
            at = intervals.bounds(interval(one, recipes))
            rates = ", ".join(f"{each.wer:.3f}" for each in one.trainings)
            name = "the default recipe" if one.name == "default" else f"{one.name} of the search"
            remark = f"mean of {rates}{f'; {one.fate}' if one.fate else ''}"
            found.append(ReferenceScore(name, mean, at, remark))
    return tuple(found)


def _against(summary: Summary, best: Configuration) -> tuple[ReferenceScore, ...]:
    found, wer = [], best.value or 0.0
    model = model_of(best)
    facts = StudyFacts.from_json(summary.facts)
    baseline = facts.baselines.get(model)
    if baseline:
        at = intervals.bounds(intervals.baseline_interval(facts, model))
        found.append(
            ReferenceScore(f"untrained {short_value(model)} (zero-shot)", baseline.wer, at, _fewer(wer, baseline.wer))
        )
    default = records.default(summary.history)
    if default is not None and default.number == best.number:
        found.append(ReferenceScore("the default recipe", wer, None, "is the best itself"))
    elif default is not None and default.value is not None:
        at = intervals.bounds(intervals.interval(facts, default))
        found.append(ReferenceScore("the default recipe", default.value, at, _default(best, default)))
    return tuple(found)


def _fewer(wer: float, other: float) -> str:
    if not other:
        return ""
    change = 100 * abs(1 - wer / other)
    return f"{change:.0f} % {'fewer' if wer <= other else 'more'} word errors"


def _default(best: Configuration, default: Configuration) -> str:
    """Where it stopped, and whether the two differ where both were judged."""
    said = f"trial {default.number} at step {default.steps}"
    common = max(set(best.curve) & set(default.curve), default=None)
    if default.steps == best.steps:
        said += f", {_fewer(best.value or 0.0, default.value or 0.0)}"
    if common is None or best.errors(common) is None or default.errors(common) is None:
        return said
    mine, theirs = best.curve[common], default.curve[common]
    worse = paired_test.significantly_worse(best, default, common)
    told = "seen to be worse" if worse else "not told apart"
    return f"{said}; on the same clips at step {common} {told} ({theirs:.3f} against {mine:.3f})"


def _recipe(summary: Summary, best: Configuration) -> tuple[tuple[str, str], ...]:
    params, search = dict(best.params or {}), summary.record.space["search"]
    names = [*(name for name in search if name in params), *(name for name in params if name not in search)]
    return tuple((name if name in search else f"{name} (fixed)", _value(params[name])) for name in names)


def _value(value: Any) -> str:
    return str(value) if isinstance(value, str) else short_value(value)


def _sure(summary: Summary, confirmed: Summary | None, best: Configuration | None) -> tuple[str, ...]:
    name = summary.record.name
    if _is_confirmation(summary):
        if not racing.race_state(summary.history).over:
            return ("The confirmation has not come to its end: nothing can be told yet.",)
        said = verdicts.verdict(summary)
        sentences = [said.sentence(), said.cross_check()] if said else ["No recipe can be compared."]
        return tuple(map(_sentence, sentences))
    if confirmed is not None:
        said = verdicts.verdict(confirmed)
        assert said is not None
        tested = verdicts.verdict(confirmed, "test")
        sentences = [said.sentence(), said.cross_check(), *([tested.sentence()] if tested else [])]
        winner = chosen(summary, confirmed, None)[0]
        if best is not None and winner.number != best.number:
            sentences.append(f"The confirmation, and the export with it, prefers trial {winner.number}.")
        return tuple(map(_sentence, sentences))
    if best is None:
        return ("There is nothing to be sure of yet.",)
    return (
        "Not confirmed: the lowest of many results looks better than it is, and nobody has trained it again.",
        "The interval is over utterances like these; what other seeds give comes on top.",
        f"tmsearch confirm {name} trains the leaders and the default recipe again and says whether it is luck.",
    )


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:]


def _cost(summary: Summary, confirmed: Summary | None) -> tuple[tuple[str, str], ...]:
    training = sum(one.total("train_seconds") for one in summary.history)
    scoring = sum(one.total("eval_seconds") for one in summary.history)
    found = [("training", clock_time(training)), ("evaluation", clock_time(scoring))]
    if summary.saved:
        share = summary.saved / (summary.saved + summary.spent)
        found.append(("saved by pruning", f"{clock_time(summary.saved)} ({100 * share:.0f} %)"))
    if confirmed is not None:
        found.append(("confirmation", clock_time(confirmed.spent)))
    return tuple(found)


def _commands(summary: Summary, confirmed: Summary | None) -> tuple[tuple[str, str], ...]:
    """The two that come next."""
    name = summary.record.name
    ended = sum(one.ended for one in summary.history) >= summary.record.trials and bool(summary.history)
    if _is_confirmation(summary):
        parent = StudyFacts.from_json(summary.facts).plan.of
        if not racing.race_state(summary.history).over:
            search = (f"tmsearch report {parent}", "the search itself")
            return ((f"tmsearch confirm {parent}", "goes on with it"), search)
        return (
            (f"tmsearch export {parent} -o best.yaml", "the winner as a recipe"),
            (f"tmsearch confirm {parent} --test", "the locked test split, once"),
        )
    if not ended:
        return (
            (f"tmsearch status {name}", "how far it is"),
            (f"tmsearch resume {name}", "goes on, should nobody be at work"),
        )
    if confirmed is None:
        return (
            (f"tmsearch confirm {name}", "is the winner real?"),
            (f"tmsearch export {name} -o best.yaml", "the best as a recipe, with its evidence"),
        )
    return (
        (f"tmsearch export {name} -o best.yaml", "the winner as a recipe, with its evidence"),
        ("tmsearch train best.yaml", "the final model and its card"),
    )
