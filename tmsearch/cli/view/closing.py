"""What is said of a study when a run ends: the best configuration, what it cost, the next commands."""

from __future__ import annotations

from search.study import Summary
from tmsearch.cli.view import intervals, terminal
from tmsearch.cli.view.format import cost_line, counts_line, model_of, searched_knobs
from tmsearch.trial.facts import StudyFacts


def best_line(summary: Summary) -> str | None:
    """The best configuration beside the untrained model, None where there is no result."""
    best = summary.best
    if best is None or best.params is None or best.value is None:
        return None
    facts = StudyFacts.from_json(summary.facts)
    model = model_of(best)
    untrained = ""
    if model in facts.baselines:
        baseline_interval = intervals.bracketed(intervals.baseline_interval(facts, model))
        untrained = f" (untrained: {facts.baselines[model].rate(summary.record.objective):.3f}{baseline_interval})"
    rate = f"{summary.record.measure} {best.value:.3f}{intervals.bracketed(intervals.interval(facts, best))}"
    provisional = "" if summary.has_ended else ", provisional"
    return f"best: trial {best.number}, {rate} at step {best.steps}{untrained}{provisional}"


def result_lines(summary: Summary, price: float | None = None) -> list[str]:
    """What a run came to: the configurations, what they cost, and the best one."""
    line = best_line(summary)
    if line is None or summary.best is None:
        return [f"no configuration has a result; `tmsearch status {summary.record.name}` shows them"]
    return [
        counts_line(summary),
        cost_line(summary, price),
        line,
        f"  {searched_knobs(summary.record.space, summary.best.params)}",
    ]


def closing_lines(summary: Summary, price: float | None = None) -> list[str]:
    """The last lines of a run: the best configuration and the next commands."""
    lines = result_lines(summary, price)
    if best_line(summary) is None:
        return lines
    return [*lines, "next:", *_command_lines(*_next_commands(summary))]


def _next_commands(summary: Summary) -> list[tuple[str, str]]:
    """What makes sense now: a study that has not ended is continued first, not confirmed."""
    name = summary.record.name
    report = (f"report {name}", "a page to look at and listen to")
    dashboard = ("dashboard", "in optuna-dashboard")
    if not summary.has_ended:
        return [report, (f"resume {name}", "continues the search"), dashboard]
    return [
        report,
        (f"confirm {name}", "is the winner real?"),
        (f"export {name} -o best.yaml", "its recipe"),
        ("train best.yaml", "the final model"),
        dashboard,
    ]


def _command_lines(*commands: tuple[str, str]) -> list[str]:
    """Commands, each with its purpose where all lines have room for it."""
    longest = max(len(command) for command, _ in commands)
    lines = [f"  tmsearch {command:<{longest}}  # {purpose}" for command, purpose in commands]
    if max(map(len, lines)) <= terminal.COLUMNS:
        return lines
    return [f"  tmsearch {command}" for command, _ in commands]
