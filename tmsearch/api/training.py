"""The final training run, from Python: in a process of its own, so that this one keeps its memory and its GPU."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import subprocess
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from search import platforms
from search.execution.lease import Interrupts
from search.exit_codes import BAD_INPUT, DONE, INTERRUPTED
from tmsearch import job_server
from tmsearch.api.errors import InputError, RunFailedError, StudyInterrupted, one_line_errors

METRICS = "metrics.json"
_LOOK_SECONDS = 0.2  # between looks at interrupts
_PREFIX = "tmsearch: "  # of the line that a command prints of an error


@dataclass(frozen=True)
class Model:
    """A trained model: a Hugging Face folder that `pipeline("automatic-speech-recognition", model=...)` loads.

    Attributes:
        folder: where it is, with its card in README.md.
        metrics: what it scored, as metrics.json has it: `validation`, `test` and so on, each with its `wer`.
    """

    folder: Path
    metrics: Mapping[str, Any] = field(repr=False)

    @property
    def validation_wer(self) -> float:
        """Normalised WER on the validation clips."""
        return float(self.metrics["validation"]["wer"])

    @property
    def test_wer(self) -> float | None:
        """Normalised WER on the locked test clips, read once; None without a test split."""
        test = self.metrics.get("test")
        return None if test is None else float(test["wer"])

    def __fspath__(self) -> str:
        """The folder: a model may be given wherever a path may."""
        return str(self.folder)


def train(
    recipe: str | os.PathLike[str],
    output: str | os.PathLike[str] | None = None,
    *,
    dtype: str = "float32",
    average: int | None = None,
    soup: str | None = None,
    on_all: bool = False,
    runtimes: bool = True,
    track: Sequence[str] | None = None,
    storage: str | None = None,
    progress: bool = True,
) -> Model:
    """Train a recipe in full, score it once on the locked test split, and write the model, as `tmsearch train` does.

    Interrupted, the same call resumes from the last checkpoint; called again after its end it trains nothing.

    Args:
        recipe: the file that `Study.export` wrote, or a trial's config.yaml.
        output: the model's folder; None: the recipe's path without .yaml.
        dtype: of the weights: float32, float16 or bfloat16.
        average: average the last so many checkpoints, if the validation clips say so.
        soup: merge the models of this study's confirmation, if the validation clips say so.
        on_all: train on the validation clips, too; the test split stays locked.
        runtimes: whether to hear the test clips in transformers' pipeline and faster-whisper as well.
        track: trackers to mirror to; None: as before, at first TMSEARCH_TRACK.
        storage: of the study that `soup` names.
        progress: whether to print what the command prints.

    Raises:
        InputError: the recipe, the folder or an argument is wrong, in the one line that the command prints.
        RunFailedError: the training failed.
        StudyInterrupted: a signal ended it, and everything is kept.
    """
    file = Path(recipe)
    folder = Path(output) if output is not None else file.with_suffix("")
    words = ["--output", str(folder), "--dtype", dtype]
    for name, value in (("average", average), ("soup", soup)):
        words += [] if value is None else [f"--{name}", str(value)]
    for tracker in track or ():
        words += ["--track", tracker]
    words += ["--on-all"] if on_all else []
    words += [] if runtimes else ["--no-runtimes"]
    with one_line_errors():
        _run(["train", *words, "--", str(file)], storage, print if progress else None)
        return Model(folder, json.loads((folder / METRICS).read_text(encoding="utf-8")))


def _run(words: Sequence[str], storage: str | None, say: Callable[[str], object] | None) -> None:
    """Run a command in a process of its own to its end.

    Args:
        words: the command's.
        storage: a database's URL: it may hold a password, and goes through the environment.
        say: takes each line that it prints.

    Raises:
        InputError, RunFailedError: the command failed, with its line.
        StudyInterrupted: a signal ended it.
    """
    interrupts = Interrupts()
    lines: queue.Queue[str | None] = queue.Queue()
    complaints: list[str] = []
    last = ""
    with interrupts.handle_signals(), _started(words, storage) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        threading.Thread(target=_queue_lines, args=(process.stdout, lines), daemon=True).start()
        reader = threading.Thread(target=_keep_lines, args=(process.stderr, complaints), daemon=True)
        reader.start()
        for line in _lines_until_end(process, lines, interrupts):
            last = line
            if say is not None:
                say(line)
        reader.join()
    code = process.returncode
    if code == INTERRUPTED or interrupts.leave:
        raise StudyInterrupted(last)
    if code != DONE:
        problem = complaints[-1].strip().removeprefix(_PREFIX) if complaints else last
        raise (InputError if code == BAD_INPUT else RunFailedError)(problem or f"the training ended with code {code}")


@contextlib.contextmanager
def _started(words: Sequence[str], storage: str | None) -> Iterator[subprocess.Popen[bytes]]:
    """The command's process within the block; whatever ends the block ends it."""
    process = subprocess.Popen(
        job_server.command("tmsearch", *words),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, **({"TMSEARCH_STORAGE": storage} if storage else {})},
        **platforms.apart(),  # a Ctrl-C reaches it through this process alone
    )
    try:
        yield process
        process.wait()
    finally:
        if process.poll() is None:
            platforms.kill_tree(process)
            process.wait()


def _lines_until_end(
    process: subprocess.Popen[bytes], lines: queue.Queue[str | None], interrupts: Interrupts
) -> Iterator[str]:
    """What the process prints, until it has closed its output; the first signal is passed on, the second kills it."""
    is_asked = False
    while True:
        if interrupts.leave:
            platforms.kill_tree(process)
        elif interrupts.stop and not is_asked:
            is_asked = True
            platforms.ask_to_exit(process)
        try:
            line = lines.get(timeout=_LOOK_SECONDS)
        except queue.Empty:
            continue
        if line is None:
            return
        yield line


def _queue_lines(stream: IO[bytes], lines: queue.Queue[str | None]) -> None:
    """Put the stream's lines on the queue, None at its end."""
    for line in stream:
        lines.put(_text(line))
    lines.put(None)


def _keep_lines(stream: IO[bytes], lines: list[str]) -> None:
    """Add the stream's lines to the list, up to its end."""
    lines.extend(map(_text, stream))


def _text(line: bytes) -> str:
    return line.decode("utf-8", errors="replace").rstrip("\r\n")
