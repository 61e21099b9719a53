"""The arguments of every command, and how their values are read."""

from __future__ import annotations

import argparse
import re

from search.execution.launchers import ENGINES

SHORTEST_WATCH = 0.5  # seconds
_UNITS = {"": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


def duration(text: str) -> float:
    """90, 90s, 5m, 2h, 1d -> seconds."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([smhd]?)", text.strip())
    if not match or not float(match[1]):
        raise argparse.ArgumentTypeError(f"{text!r} is no duration; write 90s, 5m or 2h")
    return float(match[1]) * _UNITS[match[2]]


def count(text: str) -> int:
    """A whole number from 1 on."""
    if not text.isdigit() or not 1 <= int(text) <= 1_000_000:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number from 1 to 1000000")
    return int(text)


def number(text: str) -> int:
    """A whole number from 0 on."""
    if not text.isdigit() or int(text) >= 2**31:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number from 0 to {2**31 - 1}")
    return int(text)


def timeout(one: argparse.ArgumentParser) -> None:
    one.add_argument("--timeout", type=duration, metavar="TIME", help="save and leave after 90s, 5m, 2h ...")


def run_options(one: argparse.ArgumentParser) -> None:
    one.add_argument(
        "--trials", type=count, metavar="N", help="the study's total number of configurations (new study: 20)"
    )
    timeout(one)
    hands(one)


def hands(one: argparse.ArgumentParser) -> None:
    one.add_argument("--workers", type=count, metavar="N", help="so many at once (one a GPU; one on a CPU)")
    one.add_argument("--on", choices=ENGINES, default="local", help="what starts the workers (local)")
    one.add_argument(
        "--engine", action="append", default=[], metavar="KEY=VALUE", help="for slurm or ray: partition=gpu, num_gpus=1"
    )


def run(one: argparse.ArgumentParser) -> None:
    one.add_argument("--space", required=True, metavar="FILE", help="the space file: what is searched, on which data")
    one.add_argument("--study", metavar="NAME", help="another name than the space's: starts a study beside it")
    run_options(one)
    one.add_argument("--seed", type=number, metavar="N", help="of sampling and training (new study: 0)")
    one.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="change the space: train.batch_size=8"
    )
    one.add_argument("--dry-run", action="store_true", help="check space, data, models and disk; print the plan")


def study(one: argparse.ArgumentParser) -> None:
    one.add_argument("study", metavar="STUDY")


def as_json(one: argparse.ArgumentParser) -> None:
    one.add_argument("--json", action="store_true", help="print JSON for scripts")


def study_json(one: argparse.ArgumentParser) -> None:
    study(one)
    as_json(one)


def seconds(text: str) -> float:
    """As `duration`, but not so short that a database is asked without end."""
    found = duration(text)
    if found < SHORTEST_WATCH:
        raise argparse.ArgumentTypeError(f"{text!r} is too short; from {SHORTEST_WATCH:g}s on")
    return found


def status(one: argparse.ArgumentParser) -> None:
    study_json(one)
    one.add_argument(
        "--watch", type=seconds, nargs="?", const=2.0, metavar="SECONDS",
        help="again and again, until the study has ended (every 2 s)",
    )  # fmt: skip


def resume(one: argparse.ArgumentParser) -> None:
    study(one)
    run_options(one)


def worker(one: argparse.ArgumentParser) -> None:
    study(one)
    timeout(one)


def doctor(one: argparse.ArgumentParser) -> None:
    study_json(one)
    one.add_argument("--repair", action="store_true", help="mend what can be mended")


def add(one: argparse.ArgumentParser) -> None:
    study(one)
    one.add_argument("values", nargs="+", metavar="KNOB=VALUE", help="searched knobs; what is left out is sampled")


def retry(one: argparse.ArgumentParser) -> None:
    study(one)
    one.add_argument("numbers", nargs="*", type=number, metavar="NUMBER", help="none: every failed one")


def delete(one: argparse.ArgumentParser) -> None:
    study(one)
    one.add_argument("--yes", action="store_true", help="do not ask")


def show(one: argparse.ArgumentParser) -> None:
    study(one)
    one.add_argument("number", type=number, metavar="NUMBER")
    as_json(one)


def confirm(one: argparse.ArgumentParser) -> None:
    study(one)
    one.add_argument("--top", type=count, metavar="N", help="leaders to race against the default recipe (3)")
    one.add_argument("--seeds", type=count, metavar="N", help="most trainings of each, other seeds each (3)")
    one.add_argument("--folds", type=count, metavar="K", help="reshuffled splits: K disjoint validation sets in turn")
    one.add_argument("--budget", type=duration, metavar="TIME", help="spend no more than 30m, 4h ... on it in all")
    hands(one)
    one.add_argument("--test", action="store_true", help="then read the locked test split, once")


def import_(one: argparse.ArgumentParser) -> None:
    study(one)
    one.add_argument("logs", nargs="+", metavar="LOG", help="results.yaml, trainer_state.json, TensorBoard events, CSV")
    one.add_argument("--space", metavar="FILE", help="make the study from this space file where it is not there yet")
    one.add_argument("--wer", choices=("raw", "normalised"), help="what the WER counts, where the log does not tell")
    one.add_argument("--percent", action=argparse.BooleanOptionalAction, help="WERs are per cent, or are not")
    one.add_argument("--set", action="append", default=[], metavar="KNOB=VALUE", help="what the logs do not tell")


def export(one: argparse.ArgumentParser) -> None:
    study(one)
    one.add_argument("--trial", type=number, metavar="NUMBER", help="this configuration; none: the best")
    one.add_argument("-o", "--output", metavar="FILE", help="none: standard output")
    one.add_argument(
        "--format", choices=("tmsearch", "hf"), default="tmsearch", help="hf: Seq2SeqTrainingArguments, as JSON"
    )


def train(one: argparse.ArgumentParser) -> None:
    one.add_argument("recipe", metavar="RECIPE", help="what `export` wrote, or a trial's config.yaml")
    one.add_argument("-o", "--output", metavar="DIR", help="the model folder to write; none: RECIPE without .yaml")
    one.add_argument(
        "--dtype", choices=("float32", "float16", "bfloat16"), default="float32", help="of the weights (float32)"
    )
    one.add_argument("--average", type=count, metavar="N", help="average the last N checkpoints, if validation says so")
    one.add_argument("--soup", metavar="STUDY", help="merge the models of its confirmation, if validation says so")
    one.add_argument("--on-all", action="store_true", help="train on the validation clips too; the test split stays")
    one.add_argument("--push-to-hub", metavar="NAME", help="then upload it, private; needs HF_TOKEN")
    one.add_argument("--public", action="store_true", help="with --push-to-hub: for everybody to see")


def report(one: argparse.ArgumentParser) -> None:
    study(one)
    one.add_argument("-o", "--output", metavar="FILE", help="the page to write; none: STUDY-report.html")


def dashboard(one: argparse.ArgumentParser) -> None:
    one.add_argument("--host", default="127.0.0.1", help="address to listen on (127.0.0.1)")
    one.add_argument("--port", type=number, default=8080, help="port to listen on (8080)")


def tensorboard(one: argparse.ArgumentParser) -> None:
    study(one)
    one.add_argument("--host", default="127.0.0.1", help="address to listen on (127.0.0.1)")
    one.add_argument("--port", type=number, default=6006, help="port to listen on (6006)")


def data(one: argparse.ArgumentParser) -> None:
    one.add_argument("source", metavar="PATH_OR_SPACE", help="a dataset as in data.dataset, or a space file")
    as_json(one)
    one.add_argument("--html", metavar="FILE", help="write a page to look at and listen to")
    one.add_argument("--transcribe", metavar="MODEL", help="with --html: let it hear the clips: wrong texts?")


def init(one: argparse.ArgumentParser) -> None:
    one.add_argument("dataset", metavar="DATASET", help="hub id, folder of audio + metadata.csv, parquet, or demo")
    one.add_argument("-o", "--output", metavar="FILE", help="the space file to write (spaces/STUDY.yaml)")
    one.add_argument("--study", metavar="NAME", help="none: after the dataset")
    one.add_argument("--language", metavar="CODE", help="of the speech; none: what the dataset says, else en")
    one.add_argument("--model", action="append", metavar="NAME", help="train this one; several: search among them")
    one.add_argument("--gpu", type=gigabytes, metavar="GB", help="memory of the GPU that will train (this machine's)")
    one.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="of the data: data.text_column=said"
    )
    one.add_argument("--force", action="store_true", help="write over a file that is there")


def gigabytes(text: str) -> float:
    """Of memory; 0: no GPU."""
    if not re.fullmatch(r"\d+(\.\d+)?", text) or float(text) > 10_000:
        raise argparse.ArgumentTypeError(f"{text!r} is no memory in GB; write 24 or 80, or 0 for none")
    return float(text)


def completion(one: argparse.ArgumentParser) -> None:
    one.add_argument("shell", choices=("bash", "zsh", "fish"))


def help_(one: argparse.ArgumentParser) -> None:
    one.add_argument("about", nargs="?", metavar="COMMAND", help="none: all of them")
