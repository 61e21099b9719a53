"""The arguments of every command, and how their values are read."""

from __future__ import annotations

import argparse
import re
from argparse import ArgumentParser

from search.execution.launchers import ENGINES
from tmsearch.export.conversion.targets import TARGETS
from tmsearch.formatting import parse_duration
from tmsearch.notices.target import is_target

SHORTEST_INTERVAL = 0.5  # seconds between two readings of a database


def duration(text: str) -> float:
    """90, 90s, 5m, 2h, 1d -> seconds."""
    seconds = parse_duration(text)
    if seconds is None:
        raise argparse.ArgumentTypeError(f"{text!r} is not a duration; write 90s, 5m or 2h")
    return seconds


def interval(text: str) -> float:
    """Seconds from SHORTEST_INTERVAL on, written as a duration."""
    seconds = duration(text)
    if seconds < SHORTEST_INTERVAL:
        raise argparse.ArgumentTypeError(f"{text!r} is too short; from {SHORTEST_INTERVAL:g}s on")
    return seconds


def count(text: str) -> int:
    """A whole number from 1 on."""
    if not text.isdigit() or not 1 <= int(text) <= 1_000_000:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1 to 1000000")
    return int(text)


def number(text: str) -> int:
    """A whole number from 0 on."""
    if not text.isdigit() or int(text) >= 2**31:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 0 to {2**31 - 1}")
    return int(text)


def port_number(text: str) -> int:
    """A port of TCP; 0: one that is free."""
    if not text.isdigit() or int(text) > 65_535:
        raise argparse.ArgumentTypeError(f"{text!r} is not a port, a whole number from 0 to 65535")
    return int(text)


def gigabytes(text: str) -> float:
    """Memory in GB; 0: no GPU."""
    if not re.fullmatch(r"\d+(\.\d+)?", text) or float(text) > 10_000:
        raise argparse.ArgumentTypeError(f"{text!r} is not a memory size in GB; write 24 or 80, or 0 for none")
    return float(text)


def dollars(text: str) -> float:
    """A price in dollars."""
    if not re.fullmatch(r"\d+(\.\d+)?", text) or float(text) > 100_000:
        raise argparse.ArgumentTypeError(f"{text!r} is not a price in dollars; write 2.50")
    return float(text)


def data(parser: ArgumentParser) -> None:
    parser.add_argument("source", metavar="PATH_OR_SPACE", help="a dataset as in data.dataset, or a space file")
    as_json(parser)
    key_values(parser, "--set", "KEY=VALUE", "of the data: data.audio_column=audio.throat_microphone, data.channel=1")
    parser.add_argument("--html", metavar="FILE", help="write a page to look at and listen to")
    parser.add_argument(
        "--transcribe", metavar="MODEL", help="with --html: transcribe the clips, to find texts that may be wrong"
    )


def init(parser: ArgumentParser) -> None:
    parser.add_argument("dataset", metavar="DATASET", help="hub id, folder of audio + metadata.csv, parquet, or demo")
    parser.add_argument("-o", "--output", metavar="FILE", help="the space file to write (spaces/STUDY.yaml)")
    parser.add_argument("--study", metavar="NAME", help="none: after the dataset")
    parser.add_argument("--language", metavar="CODE", help="of the speech; none: what the dataset says, else en")
    parser.add_argument("--model", action="append", metavar="NAME", help="train this one; several: search among them")
    parser.add_argument(
        "--gpu", type=gigabytes, metavar="GB", help="memory of the GPU that will train (this machine's)"
    )
    price(parser)
    key_values(parser, "--set", "KEY=VALUE", "of the data: data.text_column=transcript")
    parser.add_argument("--force", action="store_true", help="overwrite an existing file")


def run(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--space", required=True, metavar="FILE", help="the space file: what is searched, on which data"
    )
    parser.add_argument("--study", metavar="NAME", help="another name than the space's: starts a study beside it")
    run_options(parser)
    parser.add_argument("--seed", type=number, metavar="N", help="of sampling and training (new study: 0)")
    key_values(parser, "--set", "KEY=VALUE", "change the space: train.batch_size=8")
    dry_run(parser, "check space, data, models and disk; print the plan")


def dry_run(parser: ArgumentParser, text: str) -> None:
    parser.add_argument("--dry-run", action="store_true", help=text)
    parser.add_argument("--gpu", type=gigabytes, metavar="GB", help="with --dry-run: plan for a GPU of this memory")


def price(parser: ArgumentParser) -> None:
    parser.add_argument("--price", type=dollars, metavar="PER_HOUR", help="of one worker, in dollars: say the cost")


def resume(parser: ArgumentParser) -> None:
    study(parser)
    run_options(parser, trials="as before")


def notice(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--notify",
        type=notice_target,
        metavar="URL",
        help="at the end POST a summary there, as Slack, Mattermost and others take it, or `desktop`; a URL may be a "
        "secret: TMSEARCH_NOTIFY holds it as well",
    )


def notice_target(text: str) -> str:
    """Where a notice is sent. The error does not quote it: it may be a secret."""
    if not is_target(text):
        raise argparse.ArgumentTypeError("neither an http(s) URL nor `desktop`")
    return text


def run_options(parser: ArgumentParser, trials: str = "as before; new study: 20") -> None:
    parser.add_argument(
        "--trials", type=count, metavar="N", help=f"the study's total number of configurations ({trials})"
    )
    timeout(parser)
    worker_options(parser)
    track(parser)
    price(parser)
    notice(parser)


def track(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--track",
        action="append",
        metavar="TRACKER",
        help="mirror to trackio, wandb or mlflow, or several, or none (as before; at first: TMSEARCH_TRACK)",
    )


def worker(parser: ArgumentParser) -> None:
    study(parser)
    timeout(parser)


def timeout(parser: ArgumentParser) -> None:
    parser.add_argument("--timeout", type=duration, metavar="TIME", help="save and exit after 90s, 5m, 2h ...")


def worker_options(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--workers", type=count, metavar="N", help="how many train at the same time (one a GPU; one on a CPU)"
    )
    parser.add_argument("--on", choices=ENGINES, default="local", help="what starts the workers (local)")
    key_values(parser, "--engine", "KEY=VALUE", "for slurm or ray: partition=gpu, num_gpus=1")


def key_values(parser: ArgumentParser, option: str, metavar: str, text: str) -> None:
    """An option that may be given several times."""
    parser.add_argument(option, action="append", default=[], metavar=metavar, help=text)


def study(parser: ArgumentParser) -> None:
    parser.add_argument("study", metavar="STUDY")


def as_json(parser: ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print JSON for scripts")


def study_json(parser: ArgumentParser) -> None:
    study(parser)
    as_json(parser)


def add(parser: ArgumentParser) -> None:
    study(parser)
    parser.add_argument("values", nargs="+", metavar="KNOB=VALUE", help="searched knobs; what is left out is sampled")


def retry(parser: ArgumentParser) -> None:
    study(parser)
    parser.add_argument("numbers", nargs="*", type=number, metavar="NUMBER", help="none: every failed one")


def delete(parser: ArgumentParser) -> None:
    study(parser)
    parser.add_argument("--yes", action="store_true", help="do not ask")


def import_(parser: ArgumentParser) -> None:
    study(parser)
    parser.add_argument(
        "logs", nargs="+", metavar="LOG", help="results.yaml, trainer_state.json, TensorBoard events, CSV"
    )
    parser.add_argument("--space", metavar="FILE", help="create the study from this space file if it does not exist")
    parser.add_argument(
        "--wer", choices=("raw", "normalised"), help="what the WER counts, if the log does not say which"
    )
    parser.add_argument("--percent", action=argparse.BooleanOptionalAction, help="WERs are per cent, or are not")
    key_values(parser, "--set", "KNOB=VALUE", "what the logs do not say")


def status(parser: ArgumentParser) -> None:
    study_json(parser)
    parser.add_argument(
        "--watch",
        type=interval,
        nargs="?",
        const=2.0,
        metavar="SECONDS",
        help="again and again, until the study has ended (every 2 s)",
    )
    parser.add_argument("--brief", action="store_true", help="in at most 500 characters, for a chat")
    price(parser)


def doctor(parser: ArgumentParser) -> None:
    parser.add_argument("study", nargs="?", metavar="STUDY", help="none: this machine, for a training or an issue")
    as_json(parser)
    parser.add_argument("--repair", action="store_true", help="repair what can be repaired")


def show(parser: ArgumentParser) -> None:
    study(parser)
    parser.add_argument("number", type=number, metavar="NUMBER")
    as_json(parser)


def report(parser: ArgumentParser) -> None:
    study(parser)
    parser.add_argument("-o", "--output", metavar="FILE", help="the page to write; none: STUDY-report.html")


def dashboard(parser: ArgumentParser) -> None:
    address(parser, 8080)


def tensorboard(parser: ArgumentParser) -> None:
    study(parser)
    address(parser, 6006)


def address(parser: ArgumentParser, port: int) -> None:
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (127.0.0.1)")
    parser.add_argument("--port", type=port_number, default=port, help=f"port to listen on ({port})")


def confirm(parser: ArgumentParser) -> None:
    study(parser)
    parser.add_argument("--top", type=count, metavar="N", help="leaders to race against the default recipe (3)")
    parser.add_argument("--seeds", type=count, metavar="N", help="trainings of each, other seeds each, on average (3)")
    parser.add_argument(
        "--folds", type=count, metavar="K", help="reshuffled splits: K disjoint validation sets in turn"
    )
    parser.add_argument("--budget", type=duration, metavar="TIME", help="spend no more than 30m, 4h ... on it in all")
    worker_options(parser)
    track(parser)
    price(parser)
    notice(parser)
    parser.add_argument("--test", action="store_true", help="then read the locked test split, once")
    dry_run(parser, "check plan, data and models; print what is trained, what it takes, what is done of it")


def export(parser: ArgumentParser) -> None:
    study(parser)
    parser.add_argument("--trial", type=number, metavar="NUMBER", help="this configuration; none: the best")
    parser.add_argument("-o", "--output", metavar="FILE", help="none: standard output")
    parser.add_argument(
        "--format", choices=("tmsearch", "hf"), default="tmsearch", help="hf: Seq2SeqTrainingArguments, as JSON"
    )


def train(parser: ArgumentParser) -> None:
    parser.add_argument("recipe", metavar="RECIPE", help="what `export` wrote, or a trial's config.yaml")
    parser.add_argument("-o", "--output", metavar="DIR", help="the model folder to write; none: RECIPE without .yaml")
    parser.add_argument(
        "--dtype", choices=("float32", "float16", "bfloat16"), default="float32", help="of the weights (float32)"
    )
    parser.add_argument(
        "--average", type=count, metavar="N", help="average the last N checkpoints, if validation says so"
    )
    parser.add_argument("--soup", metavar="STUDY", help="merge the models of its confirmation, if validation says so")
    parser.add_argument(
        "--on-all", action="store_true", help="train on the validation clips too; the test split stays locked"
    )
    parser.add_argument(
        "--card-transcripts", action="store_true", help="print the worst test clips' transcripts in the model card"
    )
    parser.add_argument(
        "--no-runtimes",
        action="store_true",
        help="do not hear the test clips and long recordings once more in transformers' pipeline and faster-whisper",
    )
    track(parser)
    parser.add_argument("--push-to-hub", metavar="NAME", help="then upload it, private; needs HF_TOKEN")
    parser.add_argument("--public", action="store_true", help="with --push-to-hub: visible to everybody")


def export_model(parser: ArgumentParser) -> None:
    parser.add_argument("folder", metavar="DIR", help="the model folder that `train` wrote")
    parser.add_argument(
        "--to", required=True, choices=tuple(TARGETS), help="what faster-whisper, whisper.cpp, onnxruntime read"
    )
    parser.add_argument("--out", metavar="FOLDER", help="the new folder to write; none: DIR-ctranslate2 and the like")
    parser.add_argument(
        "--dtype", choices=("float32", "float16"), help="of the weights (float16; onnx: float32); ctranslate2 has both"
    )
    parser.add_argument(
        "--data", metavar="DATASET", help="clips to hear with the result, as data.dataset; none: DIR's validation clips"
    )
    parser.add_argument(
        "--clips", type=number, default=40, metavar="N", help="how many clips to hear; 0: convert only (40)"
    )


def completion(parser: ArgumentParser) -> None:
    parser.add_argument("shell", choices=("bash", "zsh", "fish"))


def help_(parser: ArgumentParser) -> None:
    parser.add_argument("about", nargs="?", metavar="COMMAND", help="none: all of them")
