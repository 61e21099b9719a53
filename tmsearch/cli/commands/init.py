"""The command init: looks at a dataset and writes a commented space file for it."""

from __future__ import annotations

import argparse
import dataclasses
import re
import shlex
import tempfile
import unicodedata
from pathlib import Path
from typing import Any

from search.errors import UserError
from search.execution.launchers.local import gpus
from search.space import parsing
from search.space.errors import Location, nearest, printable
from search.space.search_space import check_study_name
from tmsearch.cli.services.knobs import DATA, TRAIN, load_space
from tmsearch.cli.services.plan import data_line
from tmsearch.cli.view.output_file import write_output
from tmsearch.config import DataConfig
from tmsearch.data import corpus as clips
from tmsearch.data import splits
from tmsearch.data.corpus import Corpus
from tmsearch.data_quality import suggest_space
from tmsearch.trial.facts import DataFacts

LONGEST_NAME = 40  # characters of a study that is named after its dataset
LATIN = 0x250  # where Unicode's Latin letters end, but for a few


def init(arguments: argparse.Namespace) -> int:
    """Write a space file for a dataset and say what was assumed; trains nothing."""
    name = check_study_name(arguments.study) if arguments.study else study_name(arguments.dataset)
    output = Path(arguments.output or f"spaces/{name}.yaml")
    _free(output, arguments.force)
    config, corpus, why = _look(arguments)
    if "validation" not in _asked(arguments):
        config = dataclasses.replace(config, validation=suggest_space.parts(len(corpus.clips))[0])
    if "test" not in _asked(arguments):
        config = dataclasses.replace(config, test=suggest_space.parts(len(corpus.clips))[0])
    split = splits.split(corpus, config)
    gpu_gb, gpu_why = _gpu(arguments.gpu)
    found = suggest_space.propose(
        corpus, config, split, study=name, language_why=why, models=arguments.model or (), gpu_gb=gpu_gb,
        gpu_why=gpu_why,
    )  # fmt: skip
    text = found.text()
    _reads_back(text, config, output)
    write_output(output, text, make_folder=True)
    seconds = sum(clip.seconds for clip in corpus.clips)
    print(f"{printable(str(output))}: study {name}, written after looking at the data")
    data_facts = DataFacts(
        fingerprint=corpus.fingerprint,
        clips=len(corpus.clips),
        seconds=seconds,
        train=split.train,
        validation=split.validation,
        test=split.test,
        dropped=tuple({"name": row.name, "reason": row.reason} for row in corpus.dropped),
    )
    print(printable(data_line(config.dataset, data_facts)))
    for line in found.assumptions():
        print(f"  {printable(line)}")
    space = shlex.quote(str(output))
    print(f"next:\n  tmsearch run --space {space} --dry-run\n  tmsearch run --space {space} --trials 20")
    return 0


def study_name(dataset: str) -> str:
    """A dataset's own name as a study may be called: letters, digits, dot, dash, underscore."""
    last = Path(dataset.rstrip("/\\")).name if dataset.strip("./~\\") else Path(dataset).expanduser().resolve().name
    plain = unicodedata.normalize("NFKD", last).encode("ascii", "ignore").decode()
    for ending in (".parquet", ".csv", ".jsonl"):
        plain = plain.removesuffix(ending)
    kept = re.sub(r"[^A-Za-z0-9._-]+", "-", plain).strip("-._")[:LONGEST_NAME].strip("-._")
    return kept or "mine"


def _free(output: Path, force: bool) -> None:
    """Before the data is looked at: whether the file may be written."""
    if output.is_dir():
        raise UserError(f"{printable(str(output))}: a folder; name the space file with -o FILE.yaml")
    if output.exists() and not force:
        raise UserError(f"{printable(str(output))}: is there already; --force writes over it, -o FILE elsewhere")


def _asked(arguments: argparse.Namespace) -> dict[str, Any]:
    """What the person said of the data, checked."""
    raw: dict[str, Any] = {"data": {"dataset": arguments.dataset}}
    if arguments.language:
        raw["data"]["language"] = arguments.language
    typed = parsing.apply_overrides(raw, arguments.set, TRAIN, DATA)
    other = next((key for key in typed if key.partition(".")[0] != "data"), None)
    if other is not None:
        raise UserError(f"--set {printable(other)}: init takes data.KEY=VALUE; change the rest in the file it writes")
    place = Location("tmsearch init", "", typed)
    return dict(parsing.parse_data(raw["data"], DATA, place.at("data"), parsing.sections_of_keys(TRAIN, DATA)))


def _look(arguments: argparse.Namespace) -> tuple[DataConfig, Corpus, str]:
    """The dataset's clips, its language, and how that is known."""
    asked = _asked(arguments)
    config = DataConfig(**asked)
    corpus = clips.load(config)
    if "language" in asked:
        code, why = _code(asked["language"], "--language"), "as asked for"
    elif config.dataset == "demo":
        code, why = "en", "it is the demo's"
    elif corpus.languages:
        codes = list(dict.fromkeys(_code(one, "the dataset's language") for one in corpus.languages))
        if len(codes) > 1:
            there = ", ".join(codes)
            raise UserError(f"{config.dataset}: holds several languages ({there}); --language CODE takes one")
        code, why = codes[0], "the dataset says so"
    else:
        code, why = config.language, "ASSUMED, nothing in the dataset says it; --language CODE"
        _latin(corpus, config)
    if code != config.language:  # sentences are told apart by the language's own rules
        config = dataclasses.replace(config, language=code)
        corpus = clips.load(config)
    return config, corpus, why


def _code(said: str, where: str) -> str:
    """A language as Whisper names it: en, of `en`, `en-US` or `English`."""
    from transformers.models.whisper.tokenization_whisper import LANGUAGES, TO_LANGUAGE_CODE

    name = said.strip().lower()
    short = re.split(r"[-_]", name)[0]
    found = TO_LANGUAGE_CODE.get(name) or (short if short in LANGUAGES else None)
    if found is None:
        near = nearest(name, TO_LANGUAGE_CODE)
        hint = f"did you mean {TO_LANGUAGE_CODE[near]} ({near})?" if near else "give a code such as en, de or ko"
        raise UserError(f"{where}: {printable(said)}: none that Whisper knows; {hint}")
    return str(found)


def _latin(corpus: Corpus, config: DataConfig) -> None:
    """Refuse to assume English of texts in another script."""
    letters = [char for clip in corpus.clips for char in clip.text if char.isalpha()]
    if sum(ord(char) >= LATIN for char in letters) > len(letters) / 2:
        raise UserError(f"{config.dataset}: nothing says its language, and its texts are not English; --language CODE")


def _gpu(said: float | None) -> tuple[float, str]:
    """Memory of the GPU that will train, in GB (0: none), and how that is known."""
    if said is not None:
        return said, f"for a GPU of {said:g} GB" if said else "for a machine without a GPU"
    if not gpus():
        return 0.0, "no GPU here (--gpu GB for another machine's)"
    import torch  # only where there is one: it takes seconds to import

    if not torch.cuda.is_available():
        return 0.0, "torch cannot use this machine's GPU"
    bytes_ = min(torch.cuda.get_device_properties(one).total_memory for one in range(torch.cuda.device_count()))
    return bytes_ / 1e9, f"for this machine's GPU of {bytes_ / 1e9:.0f} GB"


def _reads_back(text: str, config: DataConfig, output: Path) -> None:
    """Check the file as `run` will, before anything is written."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise UserError(f"{printable(config.dataset)}: its name is no UTF-8, which a space file has to be") from None
    with tempfile.TemporaryDirectory() as folder:
        trial = Path(folder) / "space.yaml"
        trial.write_text(text, encoding="utf-8")
        try:
            load_space(str(trial), (), None)
        except UserError as error:
            raise UserError(str(error).replace(str(trial), str(output))) from None
