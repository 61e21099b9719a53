"""Notes as Markdown: what was tried, how well it did and how certain that is, what it cost, and why it ended."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tmsearch.formatting import clock_time, markdown

Range = Sequence[float]  # low, high
MEDIA_FOLDER = "exhibits"  # of a trial's folder: its files for the dashboard
MEDIA_LIST = "exhibits.json"  # in it, written last: the note, the files, and the result that they belong to
_UTTERANCES = "In brackets: 95 % intervals over the utterances; the spread between seeds comes on top."


@dataclass(frozen=True)
class TrialComparison:
    """A WER that a trial's is compared with on the same clips at `step`; 0 for a model that was not trained."""

    name: str
    wer: float
    step: int
    trial_wer: float
    interval: Range | None = None  # of the trial's WER less this one


@dataclass(frozen=True)
class TrialNote:
    """A configuration that has ended.

    `rungs` have the keys step, wer, wer_raw, cer, seconds. `differs` holds the default recipe's value and this
    configuration's by knob.
    """

    number: int
    origin: str
    state: str
    reason: str | None
    failure: str | None
    steps: int
    max_steps: int
    searched: Mapping[str, Any]
    differs: Mapping[str, Sequence[Any]]
    rungs: Sequence[Mapping[str, Any]]
    train_seconds: float
    eval_seconds: float
    folder: str
    workers: Sequence[str] = ()
    measure: str = "WER"  # what is minimised, for a person
    versions: Sequence[str] = ()
    interval: Range | None = None
    rivals: Sequence[TrialComparison] = field(default=())
    compares: bool = True  # its WER with those of the study's other trials


@dataclass(frozen=True)
class NoteMedia:
    """What a note says of a trial's files: an item of Markdown for each clip, what is missing, and why."""

    clips: Sequence[str] = ()
    left_out: Sequence[str] = ()
    problem: str | None = None


def value_text(value: Any) -> str:
    """A knob's value as Markdown."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "true" if value else "false"
    return markdown(f"{value:.3g}" if isinstance(value, float) else str(value))


def trial_note(trial: TrialNote, media: NoteMedia) -> str:
    """The note of a trial; its result comes first."""
    tried = ", ".join(f"{markdown(name)} {value_text(value)}" for name, value in trial.searched.items())
    parts = [
        _headline(trial),
        f"**Tried:** {tried}",
        _comparisons(trial.rivals, trial.measure),
        _differences(trial.differs),
        _curve(trial.rungs),
        _cost(trial),
        _clips(media),
        f"**Files:** {markdown(trial.folder, 1000)}" if trial.folder else "",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _headline(trial: TrialNote) -> str:
    if trial.state == "failed":
        reason = trial.reason or "no reason was recorded"
        ending = f"**Failed** ({markdown(trial.failure or 'unknown')}): {markdown(reason)}"
    else:
        ending = f"**Why it ended:** {markdown(trial.reason or trial.state)}"
    if not trial.rungs:
        return f"No result. {ending}"
    rate = trial.rungs[-1]["value"]
    value = f"**{trial.measure} {rate:.3f}**{_bracketed(trial.interval)}"
    if not trial.compares:
        return (
            f"{value} at step {trial.steps} by its own log, which does not compare with this study's trials. {ending}"
        )
    return f"{value} at step {trial.steps} of {trial.max_steps}. {ending}"


def _bracketed(interval: Range | None) -> str:
    return f" [{interval[0]:.3f}, {interval[1]:.3f}]" if interval else ""


def _comparisons(rivals: Sequence[TrialComparison], measure: str) -> str:
    if not rivals:
        return ""
    lines = [f"| against | its {measure} | this trial's | difference | |", "|---|---|---|---|---|"]
    for rival in rivals:
        step = f", at step {rival.step}" if rival.step else ""
        difference = f"{rival.trial_wer - rival.wer:+.3f}{_bracketed(rival.interval)}"
        cells = [f"{markdown(rival.name)}{step}", f"{rival.wer:.3f}", f"{rival.trial_wer:.3f}", difference]
        lines.append(f"| {' | '.join(cells)} | {verdict(rival)} |")
    return "\n".join(lines) + f"\n\n{_UTTERANCES}"


def verdict(rival: TrialComparison) -> str:
    """Whether the trial is better than `rival`, in words."""
    if rival.interval is None:
        return "not compared clip by clip"
    low, high = rival.interval
    if high < 0:
        return "better"
    return "worse" if low > 0 else "can't be told apart"


def _differences(differs: Mapping[str, Sequence[Any]]) -> str:
    if not differs:
        return ""
    changes = []
    for name, (default, value) in differs.items():
        changes.append(f"{markdown(name)} {value_text(value)} (default {value_text(default)})")
    return f"**Unlike the default recipe:** {', '.join(changes)}"


def _curve(rungs: Sequence[Mapping[str, Any]]) -> str:
    if not rungs:
        return ""
    names = {"wer": "WER", "wer_raw": "raw WER", "cer": "CER"}
    if any(rung["wer_long"] is not None for rung in rungs):
        names |= {"wer_long": "long WER", "mean": "mean WER"}
    lines = [f"| step | {' | '.join(names.values())} | time |", "|---" * (len(names) + 2) + "|"]
    for rung in rungs:
        rates = " | ".join("" if rung[name] is None else f"{rung[name]:.3f}" for name in names)
        lines.append(f"| {rung['step']} | {rates} | {clock_time(rung['seconds'])} |")
    return "\n".join(lines)


def _cost(trial: TrialNote) -> str:
    total = clock_time(trial.train_seconds + trial.eval_seconds)
    workers = f", by {markdown(', '.join(trial.workers))}" if trial.workers else ""
    code = f", code {markdown(', '.join(trial.versions))}" if trial.versions else ""
    parts = f"{clock_time(trial.train_seconds)} training, {clock_time(trial.eval_seconds)} evaluation"
    return f"**Cost:** {total} ({parts}){workers}{code}. **Origin:** {markdown(trial.origin)}."


def _clips(media: NoteMedia) -> str:
    lines = []
    if media.clips:
        lines += ["**Clips**, whose sounds and spectrograms are attached:", ""]
        lines += [f"- {clip}" for clip in media.clips]
    if media.left_out:
        names = markdown(", ".join(media.left_out))
        lines += ["", f"Left out, as the files of a trial may take no more than 2 MB: {names}."]
    if media.problem:
        lines += ["", f"Some files could not be made: {markdown(media.problem)}."]
    return "\n".join(lines).strip()


@dataclass(frozen=True)
class StudyNote:
    """A study for its note.

    Attributes:
        data, judged: phrases.
        report, without_pruned: addresses of the dashboard's own server.
        storage: the database's URL for a command line, without a password.
        queued: KNOB=VALUE, as `tmsearch add` takes it.
        measure: what is minimised, for a person.
    """

    name: str
    trials: int
    data: str
    judged: str
    max_steps: int
    strategy: str
    searched: Sequence[str]
    fixed: Mapping[str, Any]
    models: Sequence[str]
    report: str
    without_pruned: str
    storage: str
    queued: str
    measure: str = "WER"


_RATES = {
    "WER": "word error rate (WER)",
    "CER": "character error rate (CER)",
    "long WER": "word error rate of long recordings (long WER), into which the validation clips are stitched,",
    "mean WER": "mean of the word error rates of clips and of long recordings of them (mean WER)",
}


def study_note(study: StudyNote) -> str:
    """What the study is, how to read it in the dashboard, and the commands for what the dashboard can't do."""
    fixed = ", ".join(f"{markdown(name)} {value_text(value)}" for name, value in study.fixed.items()) or "nothing"
    rate = _RATES.get(study.measure, study.measure)
    parts = [
        f"# {markdown(study.name)}",
        f"**[The report]({study.report})**: the answer, the curves, what mattered, the clips to read and hear. "
        f"As a file: `{_command(study, 'report', '-o report.html')}`.",
        f"{study.trials} recipes for fine-tuning {markdown(', '.join(study.models))}. Searched: "
        f"{markdown(', '.join(study.searched))}. Fixed: {fixed}.",
        f"**Data:** {markdown(study.data.removeprefix('data '))}.",
        f"**Budget:** {study.max_steps} steps in full, judged at {study.judged} by {markdown(study.strategy)}.",
        f"**How to read it:** a trial is one recipe with its whole curve. Its value is the {rate} on the "
        "validation clips at the last step reached; values at different steps cannot be compared. *Running* is "
        "training now, *waiting* is paused or queued, *pruned* was stopped early, *complete* was trained in full, "
        "*fail* failed. A trial that waits has its values on its own page and no curve among the others'. One that "
        "has ended has a note, a table of its worst clips, its curve, and some clips to hear. Values are rounded to "
        "five decimals.",
        f"**[The trials without the pruned ones]({study.without_pruned})**; among the figures, *Include PRUNED "
        "trials* is a switch of the history's.",
        _commands(study),
        f"The lowest {study.measure} of a search is optimistic: `{_command(study, 'confirm')}` trains the leaders "
        "again and says whether the winner is more than luck. The test clips are locked and were not used here.",
    ]
    return "\n\n".join(parts) + "\n"


def _commands(study: StudyNote) -> str:
    """What the dashboard has no button for."""
    described = [
        ("its workers save and exit", _command(study, "stop")),
        ("continue", _command(study, "resume")),
        ("more recipes, as a total", _command(study, "resume", f"--trials {2 * study.trials}")),
        ("queue one: it is trained before all others", _command(study, "add", shlex.quote(study.queued))),
        ("failed ones again", _command(study, "retry")),
        ("how far it is", _command(study, "status")),
    ]
    lines = [f"# {job}\n{command}" for job, command in described]
    password = ""
    if not study.storage.startswith("sqlite"):
        password = " A password belongs into PGPASSWORD or ~/.pgpass, not into a command."
    return (
        "**What has no button here** is a command on a machine that reaches the database:\n\n```sh\n"
        + "\n".join(lines)
        + f"\n```\n\n*Fail Trial* stops nothing: the recipe goes on, in another trial.{password}"
    )


def _command(study: StudyNote, command: str, more: str = "") -> str:
    words = f"tmsearch {command} {shlex.quote(study.name)}"
    return f"{words}{' ' if more else ''}{more} --storage {shlex.quote(study.storage)}"
