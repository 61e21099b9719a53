"""Notes as Markdown: what was tried, how well it did and how sure that is, what it cost, and why it ended."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tmsearch.formatting import clock_time
from tmsearch.quoting import markdown

Range = Sequence[float]  # low, high
# Where a trial's exhibits are, in its folder, and the list of them, which is written last.
MEDIA_FOLDER, MEDIA_LIST = "exhibits", "exhibits.json"
_UTTERANCES = "In brackets: 95 % intervals over the utterances; what other seeds give comes on top."


@dataclass(frozen=True)
class TrialComparison:
    """What a trial is held against, on the same clips: `step` is where both were scored, 0: it was not trained."""

    name: str
    wer: float
    step: int
    own: float  # the trial's WER there
    interval: Range | None = None  # of the trial's WER less the rival's


@dataclass(frozen=True)
class TrialNote:
    """A configuration that has ended, as its note tells it. Times are seconds; `rungs` are step, wer, wer_raw, cer,
    seconds. `differs` holds, by knob, the default recipe's value and this one's."""

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
    versions: Sequence[str] = ()
    interval: Range | None = None
    rivals: Sequence[TrialComparison] = field(default=())


@dataclass(frozen=True)
class NoteMedia:
    """What was made to be seen and heard, in words: an item of Markdown a clip, and what is missing and why."""

    clips: Sequence[str] = ()
    left_out: Sequence[str] = ()
    problem: str | None = None


def value(one: Any) -> str:
    """A knob's value as Markdown."""
    if isinstance(one, bool):
        return "true" if one else "false"
    return markdown(f"{one:.3g}" if isinstance(one, float) else "none" if one is None else str(one))


def trial_note(one: TrialNote, made: NoteMedia) -> str:
    """The whole note; the answer comes first."""
    parts = [
        _headline(one),
        "**Tried:** " + ", ".join(f"{markdown(name)} {value(each)}" for name, each in one.searched.items()),
        _rivals(one),
        _differs(one),
        _curve(one.rungs),
        _cost(one),
        _clips(made),
        _files(one),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _headline(one: TrialNote) -> str:
    why = f"**Why it ended:** {markdown(one.reason or one.state)}"
    if one.state == "failed":
        why = f"**Failed** ({markdown(one.failure or 'unknown')}): {markdown(one.reason or 'no reason was recorded')}"
    if not one.rungs:
        return f"No result. {why}"
    return f"**WER {one.rungs[-1]['wer']:.3f}**{_bracketed(one.interval)} at step {one.steps} of {one.max_steps}. {why}"


def _bracketed(interval: Range | None) -> str:
    return f" [{interval[0]:.3f}, {interval[1]:.3f}]" if interval else ""


def _rivals(one: TrialNote) -> str:
    if not one.rivals:
        return ""
    lines = ["| against | its WER | this one's | difference | |", "|---|---|---|---|---|"]
    for each in one.rivals:
        at = f", at step {each.step}" if each.step else ""
        difference = f"{each.own - each.wer:+.3f}{_bracketed(each.interval)}"
        lines.append(f"| {markdown(each.name)}{at} | {each.wer:.3f} | {each.own:.3f} | {difference} | {_said(each)} |")
    return "\n".join(lines) + f"\n\n{_UTTERANCES}"


def _said(one: TrialComparison) -> str:
    if one.interval is None:
        return "not compared clip by clip"
    if one.interval[1] < 0:
        return "better"
    return "worse" if one.interval[0] > 0 else "can't be told apart"


def _differs(one: TrialNote) -> str:
    if not one.differs:
        return ""
    changes = (f"{markdown(name)} {value(mine)} (there {value(was)})" for name, (was, mine) in one.differs.items())
    return "**Unlike the default recipe:** " + ", ".join(changes)


def _curve(rungs: Sequence[Mapping[str, Any]]) -> str:
    if not rungs:
        return ""
    lines = ["| step | WER | raw WER | CER | time |", "|---|---|---|---|---|"]
    for rung in rungs:
        rates = " | ".join("" if rung[name] is None else f"{rung[name]:.3f}" for name in ("wer", "wer_raw", "cer"))
        lines.append(f"| {rung['step']} | {rates} | {clock_time(rung['seconds'])} |")
    return "\n".join(lines)


def _cost(one: TrialNote) -> str:
    whole = clock_time(one.train_seconds + one.eval_seconds)
    by = f", by {markdown(', '.join(one.workers))}" if one.workers else ""
    code = f", code {markdown(', '.join(one.versions))}" if one.versions else ""
    parts = f"{clock_time(one.train_seconds)} training, {clock_time(one.eval_seconds)} evaluation"
    return f"**Cost:** {whole} ({parts}){by}{code}. **Origin:** {markdown(one.origin)}."


def _clips(made: NoteMedia) -> str:
    lines = [f"- {line}" for line in made.clips]
    if lines:
        lines = ["**Clips** (below to hear and to look at):", "", *lines]
    if made.left_out:
        lines += ["", f"Left out, as a trial's files may take 2 MB: {markdown(', '.join(made.left_out))}."]
    if made.problem:
        lines += ["", f"Not all could be made: {markdown(made.problem)}."]
    return "\n".join(lines).strip()


def _files(one: TrialNote) -> str:
    return f"**Files:** {markdown(one.folder, 1000)}" if one.folder else ""


@dataclass(frozen=True)
class StudyNote:
    """A study as its note tells it."""

    name: str
    trials: int
    data: str
    judged: str
    max_steps: int
    strategy: str
    searched: Sequence[str]
    fixed: Mapping[str, Any]
    models: Sequence[str]


def study_note(one: StudyNote, report: str) -> str:
    """What the study is and how to read it; `report` is where the dashboard's server has the report."""
    name = markdown(one.name)
    fixed = ", ".join(f"{markdown(key)} {value(each)}" for key, each in one.fixed.items()) or "nothing"
    return (
        "\n\n".join(
            [
                f"# {name}",
                f"**[The report]({report})**: the answer, the curves, what mattered, the clips to read and hear. "
                f"As a file: `tmsearch report {one.name} -o report.html`.",
                f"{one.trials} recipes for fine-tuning {markdown(', '.join(one.models))}. Searched: "
                f"{markdown(', '.join(one.searched))}. Held fixed: {fixed}.",
                f"**Data:** {markdown(one.data.removeprefix('data '))}.",
                f"**Budget:** {one.max_steps} steps in full, judged at {one.judged} by {markdown(one.strategy)}.",
                "**How to read it:** one trial is one recipe with its whole curve. The value is the word error rate "
                "(WER) on the validation clips at the last step reached; values at different steps do not compare. "
                "*Pruned* was judged early, *complete* was trained in full, *running* trains or waits to go on, *fail* "
                "crashed. A trial that has ended has a note, its worst clips, some to hear and its curve.",
                "The lowest WER of a search flatters: `tmsearch confirm` trains the leaders again and says whether the "
                "winner is more than luck. The test clips are locked and were not used here.",
            ]
        )
        + "\n"
    )
