"""Text -> the token ids that a Whisper is trained on and prompted with."""

from __future__ import annotations

from tmsearch.errors import InputError
from tmsearch.languages import code_if_known
from tmsearch.model.whisper import Whisper

TIME_STEP = 0.02  # seconds between two of Whisper's timestamps


def prompt_ids(whisper: Whisper, language: str, task: str) -> list[int]:
    """The ids that generation starts from: `<|startoftranscript|><|en|><|transcribe|><|notimestamps|>`.

    English-only checkpoints have neither language nor task: `<|startoftranscript|><|notimestamps|>`.

    Args:
        whisper: The checkpoint, whose tokenizer is used.
        language: Code or English name of the spoken language.
        task: transcribe or translate.

    Raises:
        InputError: The checkpoint has no such language or task.
    """
    code = code_if_known(language)
    tokens = ["<|startoftranscript|>"]
    if whisper.is_multilingual:
        tokens += [f"<|{code}|>", f"<|{task}|>"]
    elif code != "en" or task != "transcribe":
        raise InputError(
            f"{whisper.name}: an English-only model cannot {task} from {language!r}; give a multilingual one"
        )
    return [special_id(whisper, token) for token in [*tokens, "<|notimestamps|>"]]


def label_ids(whisper: Whisper, text: str, language: str, task: str) -> list[int]:
    """The ids that the decoder is trained to output: the prompt's after `<|startoftranscript|>`, the text's, the end's.

    The model puts its start token in front of the labels by itself; labels with one of their own would train it to
    expect two. The text starts with a space, as in OpenAI's pre-training: on tiny.en the first word costs 2.9 nats
    with the space and 10.5 without. Words that look like special tokens are encoded as plain text. White space is
    collapsed. Arguments and errors are those of `prompt_ids`.
    """
    stop = special_id(whisper, "<|endoftext|>")
    return [*prompt_ids(whisper, language, task)[1:], *text_ids(whisper, text), stop]


def text_ids(whisper: Whisper, text: str) -> list[int]:
    """The ids of a text alone, see `label_ids`."""
    words = " ".join(text.split())
    encoded = whisper.tokenizer(f" {words}" if words else "", add_special_tokens=False, split_special_tokens=True)
    ids: list[int] = encoded["input_ids"]
    return ids


def first_time_id(whisper: Whisper) -> int | None:
    """The id of `<|0.00|>`, which those of later times follow in steps of TIME_STEP; None where the model has none.

    They are counted and not looked up: tokenizers of early uploads do not name them.
    """
    first = special_id(whisper, "<|notimestamps|>") + 1
    times = int(whisper.model.config.vocab_size) - first
    return first if times > round(whisper.seconds / TIME_STEP) else None


def special_id(whisper: Whisper, token: str) -> int:
    """The id of a token such as `<|endoftext|>`; raises InputError where the checkpoint has none."""
    index = whisper.tokenizer.convert_tokens_to_ids(token)
    # The tokenizer returns <|endoftext|> for a token that it does not know.
    if not isinstance(index, int) or whisper.tokenizer.convert_ids_to_tokens(index) != token:
        raise InputError(f"{whisper.name}: knows no {token}; check data.language and data.task")
    return index
