"""The command init: it looks at a dataset and writes a commented space file for it."""

from __future__ import annotations

import argparse
import dataclasses
import re
import shlex
import tempfile
import unicodedata
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from search.errors import UserError
from search.execution.launchers.gpus import gpus
from search.exit_codes import DONE
from search.space.budget import Budget
from search.space.errors import printable
from search.space.search_space import check_study_name
from tmsearch.cli.services.create import DEFAULT_TRIALS
from tmsearch.cli.services.knobs import data_section, load_space
from tmsearch.cli.services.plan import data_line, full_trainings
from tmsearch.cli.view.format import dollars
from tmsearch.cli.view.output_file import write_output
from tmsearch.config import DataConfig
from tmsearch.data import corpus as corpora
from tmsearch.data import splits
from tmsearch.data.corpus import Corpus
from tmsearch.data.splits import Split
from tmsearch.data_quality import pace, suggest_space
from tmsearch.data_quality.suggest_space import Proposal
from tmsearch.formatting import clock_time
from tmsearch.languages import language_code
from tmsearch.trial.facts import DataFacts

LONGEST_NAME = 40  # characters of a study that is named after its dataset
END_OF_LATIN = 0x250  # Unicode's Latin letters come before this code point, with few exceptions


def init(arguments: argparse.Namespace) -> int:
    """Write a space file for a dataset and say what was assumed; trains nothing."""
    name = check_study_name(arguments.study) if arguments.study else study_name(arguments.dataset)
    output = Path(arguments.output or f"spaces/{name}.yaml")
    _check_output(output, arguments.force)
    given = data_section(arguments.dataset, arguments.set, "init", arguments.language)
    config, corpus, language_why = _load(given)
    config = suggest_space.with_parts(config, given, len(corpus.clips))
    split = splits.split(corpus, config)
    gpu_gb, gpu_why = _gpu_memory(arguments.gpu)
    proposal = suggest_space.propose(
        corpus,
        config,
        split,
        study=name,
        language_why=language_why,
        models=arguments.model or (),
        gpu_gb=gpu_gb,
        gpu_why=gpu_why,
    )
    text = proposal.text()
    _check_loads(text, config, output)
    write_output(output, text, make_folder=True)
    print(f"{printable(str(output))}: study {name}, written after looking at the data")
    print(printable(data_line(config.dataset, _data_facts(corpus, split))))
    for line in (*corpus.notes[1:], *pace.remarks(corpus.clips), *proposal.assumptions()):
        print(f"  {printable(line)}")
    if arguments.price is not None:
        print(f"  {_cost_line(proposal, arguments.price)}")
    space = shlex.quote(str(output))
    print(f"next:\n  tmsearch run --space {space} --dry-run\n  tmsearch run --space {space} --trials 20")
    return DONE


def _cost_line(proposal: Proposal, price: float) -> str:
    """What a search of 20 trials costs at `price` dollars an hour."""
    if proposal.trial_seconds is None:
        return "cost: unknown for these models without a GPU; --gpu GB plans for one"
    budget = {setting.key: setting.value for setting in proposal.sections["budget"]}
    share = full_trainings(Budget(budget["max_steps"], tuple(budget["rungs"])), DEFAULT_TRIALS)
    seconds = share * proposal.trial_seconds
    return (
        f"cost: {DEFAULT_TRIALS} trials, about {clock_time(seconds)}, {dollars(seconds, price)} at {price:g} dollars "
        "an hour, predicted"
    )


def _data_facts(corpus: Corpus, split: Split) -> DataFacts:
    return DataFacts(
        fingerprint=corpus.fingerprint,
        clips=len(corpus.clips),
        seconds=sum(clip.seconds for clip in corpus.clips),
        train=split.train,
        validation=split.validation,
        test=split.test,
        dropped=tuple({"name": row.name, "reason": row.reason} for row in corpus.dropped),
    )


def study_name(dataset: str) -> str:
    """A study's name after its dataset, of letters, digits, dot, dash and underscore."""
    path = Path(dataset.rstrip("/\\"))
    if not dataset.strip("./~\\"):
        path = Path(dataset).expanduser().resolve()
    name = unicodedata.normalize("NFKD", path.name).encode("ascii", "ignore").decode()
    for suffix in (".parquet", ".csv", ".jsonl"):
        name = name.removesuffix(suffix)
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-._")[:LONGEST_NAME].strip("-._")
    return name or "mine"


def _check_output(output: Path, force: bool) -> None:
    """Before the data is looked at: whether the file may be written."""
    if output.is_dir():
        raise UserError(f"{printable(str(output))}: a folder; name the space file with -o FILE.yaml")
    if output.exists() and not force:
        raise UserError(f"{printable(str(output))}: already exists; overwrite it with --force, or name another with -o")


def _load(given: Mapping[str, Any]) -> tuple[DataConfig, Corpus, str]:
    """The dataset's configuration with its language, its clips, and how the language is known."""
    config = DataConfig(**given)
    corpus = corpora.load(config)
    if "language" in given:
        language, why = given["language"], "as asked for"
    elif config.dataset == "demo":
        language, why = "en", "it is the demo's"
    elif corpus.languages:
        language, why = _only_language(corpus, config), "the dataset says so"
    else:
        language, why = config.language, "ASSUMED, nothing in the dataset says it; --language CODE"
        _check_latin(corpus, config)
    if language != config.language:  # the language's own rules tell which clips have the same sentence
        config = dataclasses.replace(config, language=language)
        corpus = corpora.load(config)
    return config, corpus, why


def _only_language(corpus: Corpus, config: DataConfig) -> str:
    codes = list(dict.fromkeys(_language_code(name, "the dataset's language") for name in corpus.languages))
    if len(codes) > 1:
        raise UserError(f"{config.dataset}: holds several languages ({', '.join(codes)}); --language CODE takes one")
    return codes[0]


def _language_code(text: str, source: str) -> str:
    """A language as Whisper names it: en, of `en`, `en-US` or `English`; raises UserError at `source`."""
    try:
        return language_code(text)
    except ValueError as error:
        raise UserError(f"{source}: {printable(text)}: {error}") from None


def _check_latin(corpus: Corpus, config: DataConfig) -> None:
    """Refuse to assume English of texts in another script."""
    letters = [letter for clip in corpus.clips for letter in clip.text if letter.isalpha()]
    if sum(ord(letter) >= END_OF_LATIN for letter in letters) > len(letters) / 2:
        raise UserError(f"{config.dataset}: nothing says its language, and its texts are not English; --language CODE")


def _gpu_memory(given: float | None) -> tuple[float, str]:
    """Memory of the GPU that will train, in GB (0: none), and how that is known."""
    if given == 0:
        return 0.0, "for a machine without a GPU"
    if given is not None:
        return given, f"for a GPU of {given:g} GB"
    if not gpus():
        return 0.0, "no GPU here (--gpu GB for another machine's)"
    import torch  # only where there is one: it takes seconds to import

    if not torch.cuda.is_available():
        return 0.0, "torch cannot use this machine's GPU"
    devices = range(torch.cuda.device_count())
    smallest = min(torch.cuda.get_device_properties(device).total_memory for device in devices) / 1e9
    return smallest, f"for this machine's GPU of {smallest:.0f} GB"


def _check_loads(text: str, config: DataConfig, output: Path) -> None:
    """Load the file as `run` will, before anything is written; raises UserError."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise UserError(f"{printable(config.dataset)}: its name is not UTF-8, which a space file has to be") from None
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "space.yaml"
        file.write_text(text, encoding="utf-8")
        try:
            load_space(str(file), (), None)
        except UserError as error:
            raise UserError(str(error).replace(str(file), str(output))) from None
