"""CSV logs -> runs: a table of one's own, TensorBoard's export of a scalar, Weights & Biases' exports."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tmsearch.errors import InputError
from tmsearch.foreign import parsers
from tmsearch.foreign.plain_files import ForeignFileError
from tmsearch.importers.record import Ending, HandRun, Measure, by_step, digest, whole_number

Row = dict[str, str]  # cells by column, stripped

_MEASURES: Mapping[str, Measure | None] = {
    "wer_raw": "raw",
    "wer_normalised": "normalised",
    "wer_normalized": "normalised",
    "wer": None,
}
_STEPS = ("train/global_step", "trainer/global_step", "global_step", "step", "_step")
_TENSORBOARD = {"wall time", "step", "value"}
_OWN_STEPS = (
    "its steps are Weights & Biases' own count; where those are not optimizer steps, export with train/global_step "
    "as the chart's horizontal axis"
)
_EXPECTED = (
    "columns step and wer (or wer_raw, wer_normalised) are missing; name them in line 1, or give an export of "
    "TensorBoard's or Weights & Biases' with the WER in it"
)


@dataclass(frozen=True)
class _Table:
    """The rows of one run, and which columns are its step and its WER."""

    run: str
    rows: Sequence[Row]
    step: str
    wer: str
    measure: Measure | None
    remarks: tuple[str, ...] = ()


def read(file: Path, text: str, knobs: Collection[str]) -> list[HandRun]:
    """The trainings in a CSV file of one of the known forms.

    Columns of one's own: step; wer, eval_wer, wer_raw or wer_normalised; `run`, where there are several; knobs by their
    names.

    Raises:
        InputError: The file is no such table, or a value in it is no number.
    """
    try:
        header, lines = parsers.read_table(text)
        rows = []
        for number, cells in lines:
            if len(cells) > len(header) and any(cell.strip() for cell in cells[len(header) :]):
                raise ForeignFileError(f"{len(cells)} cells under {len(header)} columns; quote commas", number)
            padded = [*cells, *[""] * (len(header) - len(cells))]
            rows.append({column: cell.strip() for column, cell in zip(header, padded, strict=False)})
    except ForeignFileError as error:
        raise InputError(error.at(str(file))) from None
    return [_run(file, table, knobs) for table in _tables(file, header, rows)]


def _tables(file: Path, header: Sequence[str], rows: Sequence[Row]) -> list[_Table]:
    if {column.lower() for column in header} == _TENSORBOARD:
        return [_tensorboard(file, header, rows)]
    step = _first(header, _STEPS)
    charted = [column for column in header if " - " in column and _measure(column.rpartition(" - ")[2])]
    if charted:
        return [_chart(file, header[0], column, rows) for column in charted]
    wer = next((column for column in header if _measure(column)), None)
    if step is None or wer is None:
        raise InputError(f"{file}: {_EXPECTED}")
    name = _first(header, ("run",)) or (_first(header, ("name",)) if "State" in header else None)
    rows_by_run: dict[str, list[Row]] = {}
    for row in rows:
        rows_by_run.setdefault(row[name] if name else "", []).append(row)
    remarks = (_OWN_STEPS,) if step == "_step" else ()
    measure = _MEASURES[str(_measure(wer))]
    return [_Table(run, run_rows, step, wer, measure, remarks) for run, run_rows in rows_by_run.items()]


def _tensorboard(file: Path, header: Sequence[str], rows: Sequence[Row]) -> _Table:
    """TensorBoard's export of one scalar, which only the file's name tells: run-small-tag-eval_wer.csv."""
    names = re.match(r"(?:run[-_](?P<run>.*?)[-_])?tag[-_](?P<tag>.*?)(?: ?\(\d+\))?\Z", file.stem)
    tag = names["tag"] if names else file.stem
    known = re.search(r"(?<![A-Za-z])(wer(?:_raw|_normali[sz]ed)?)(?![A-Za-z])", tag.lower())
    if known is None:
        raise InputError(
            f"{file}: TensorBoard's export of a scalar whose name ({tag}) is not a WER's; export eval/wer, or name the "
            "file tag-eval_wer.csv if it is one"
        )
    step = str(_first(header, ("step",)))
    value = str(_first(header, ("value",)))
    run = (names["run"] if names else None) or file.stem
    return _Table(run, rows, step, value, _MEASURES[known[1]])


def _chart(file: Path, axis: str, column: str, rows: Sequence[Row]) -> _Table:
    """One run of a chart that Weights & Biases exported: a column `RUN - eval/wer` over the horizontal axis."""
    if axis.lower() not in _STEPS:
        raise InputError(
            f"{file}: its horizontal axis is {axis}; choose train/global_step or Step for it and export the chart again"
        )
    run, _, metric = column.rpartition(" - ")
    run_rows = [{"step": row[axis], "wer": row[column]} for row in rows if row[column]]
    remarks = () if "global_step" in axis else (_OWN_STEPS,)
    return _Table(run, run_rows, "step", "wer", _MEASURES[str(_measure(metric))], remarks)


def _measure(column: str) -> str | None:
    """The name in _MEASURES of a column that holds a WER: of eval/wer, eval_wer, wer_raw; None for any other."""
    name = re.sub(r"^(eval|val|validation)[/_]", "", column.lower())
    return name if name in _MEASURES else None


def _first(header: Sequence[str], names: Sequence[str]) -> str | None:
    """The column that has the earliest of `names`, in any case."""
    by_lower_name = {column.lower(): column for column in reversed(header)}
    return next((by_lower_name[name] for name in names if name in by_lower_name), None)


def _run(file: Path, table: _Table, knobs: Collection[str]) -> HandRun:
    wers: dict[int, float] = {}
    for row in table.rows:
        step = whole_number(row[table.step])
        try:
            wer = float(row[table.wer]) if row[table.wer] else None
        except ValueError:
            wer = -1.0
        if wer is not None and (step is None or wer < 0):
            raise InputError(f"{file}: run {table.run or '1'}: a step or WER is not a number from 0 on")
        if wer is not None and step is not None:
            wers[step] = wer
    params, remarks = _settings(table, knobs)
    last_step = max(wers, default=0)
    max_steps = whole_number(params.get("max_steps"))
    reason = f"ends at step {last_step} of {max_steps or '?'}"
    ending: Ending
    if not all(math.isfinite(wer) for wer in wers.values()):
        ending = "diverged"
    elif max_steps is None:
        ending = "unknown"
    elif last_step < max_steps:
        ending = "crashed"
    else:
        ending = "finished"
        reason = f"trained by hand, {last_step} steps"
    return HandRun(
        name=table.run or file.stem,
        digest=digest("csv", table.run, json.dumps(table.rows, sort_keys=True)),
        params=params,
        curve=by_step({step: wer for step, wer in wers.items() if math.isfinite(wer)}),
        ending=ending,
        reason=reason,
        last_step=last_step,
        measure=table.measure,
        remarks=(*table.remarks, *remarks),
    )


def _settings(table: _Table, knobs: Collection[str]) -> tuple[Row, list[str]]:
    """The knobs of a run, and remarks: a column that varies within the run is the schedule's, or no knob at all."""
    params: Row = {}
    remarks = []
    columns = table.rows[0] if table.rows else {}
    for column in columns:
        values = [row[column] for row in table.rows if row[column]]
        if column not in knobs or not values:
            continue
        distinct = {_as_number(value) for value in values}
        if len(distinct) == 1:
            params[column] = values[-1]
        elif column == "learning_rate" and all(isinstance(number, float) for number in distinct):
            params[column] = max(values, key=float)
            remarks.append(
                f"{column} varies within the run: its highest, {params[column]}, is taken for the peak; "
                f"--set {column}=VALUE if the peak was another"
            )
        else:
            remarks.append(f"{column} varies within the run and is left out; --set {column}=VALUE if it had one")
    return params, remarks


def _as_number(text: str) -> float | str:
    try:
        number = float(text)
    except ValueError:
        return text
    return number if math.isfinite(number) else text
