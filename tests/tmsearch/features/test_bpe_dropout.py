"""Texts with merges skipped: the tokenizer's own where none are, its own distribution where some are, drawn by seed."""

import copy

import numpy as np
import pytest

from tests.support import toy_whisper
from tmsearch.data.corpus import Clip
from tmsearch.errors import InputError
from tmsearch.features.bpe_dropout import Merges, TextIds, growth
from tmsearch.model import whisper as model
from tmsearch.model.tokens import text_ids

TEXTS = ("Hold your position at the north gate.", "  two men,  moving\tsouth ", "don't - 42!", "Größe und 東京", "")
CLIPS = [Clip(f"{index}", text, 1.0, (text,)) for index, text in enumerate(TEXTS[:-1])]


@pytest.fixture(scope="module")
def nano():
    return model.load(toy_whisper.config("demo/nano"))


def rng(seed=0):
    return np.random.default_rng(seed)


@pytest.mark.parametrize("text", TEXTS)
def test_without_skipping_the_ids_are_the_tokenizers(nano, text):
    assert Merges(nano).ids(text, 0.0, rng()) == text_ids(nano, text)


def test_skipped_merges_leave_the_text_as_it_was(nano):
    merges = Merges(nano)
    for text in TEXTS[:-1]:
        drawn = {tuple(merges.ids(text, 0.3, rng(seed))) for seed in range(10)}
        assert len(drawn) > 2
        for ids in drawn:
            assert nano.tokenizer.decode(list(ids)) == " " + " ".join(text.split())
    letters = merges.ids("gate", 0.999999, rng())
    assert len(letters) == len(" gate")


def test_as_many_merges_are_skipped_as_by_the_tokenizers_library(nano):
    library = copy.deepcopy(nano.tokenizer.backend_tokenizer)
    library.model.dropout = 0.2
    text = TEXTS[0]
    merges = Merges(nano)
    repeats = 600
    own = [len(merges.ids(text, 0.2, rng(seed))) for seed in range(repeats)]
    theirs = [len(library.encode(f" {text}", add_special_tokens=False).ids) for _ in range(repeats)]
    error = np.sqrt((np.var(own) + np.var(theirs)) / repeats)
    assert len(text_ids(nano, text)) + 5 * error < np.mean(own)
    assert abs(np.mean(own) - np.mean(theirs)) < 5 * error


def test_a_draw_depends_on_seed_step_and_place_alone(nano):
    def drawn(name="0", step=1, index=0, place=0, **knobs):
        config = toy_whisper.config("demo/nano", **{"bpe_dropout": 0.3, **knobs})
        return TextIds(nano, CLIPS, config).drawn(name, step, index, place)

    assert drawn() == drawn()
    others = [drawn(step=2), drawn(index=1), drawn(place=1), drawn(seed=5)]
    assert sum(other != drawn() for other in others) >= 3
    assert drawn(bpe_dropout=0.0) == text_ids(nano, TEXTS[0])


def test_a_text_that_would_be_too_long_keeps_its_own_ids(nano):
    texts = TextIds(nano, CLIPS, toy_whisper.config("demo/nano", bpe_dropout=0.5))
    plain = texts.plain["0"]
    assert texts.drawn("0", 1, 0, most=len(plain)) == plain
    assert len(plain) < len(texts.drawn("0", 1, 0)) <= texts.most("0")


def test_how_much_longer_texts_become_is_measured_on_some(nano):
    assert growth(nano, CLIPS, toy_whisper.config("demo/nano")) == 1.0
    assert 1.05 < growth(nano, CLIPS, toy_whisper.config("demo/nano", bpe_dropout=0.2)) < 2.0


def test_a_tokenizer_without_merges_is_refused(tmp_path):
    toy = model.load(toy_whisper.config(toy_whisper.whisper_folder(tmp_path)))
    with pytest.raises(InputError, match=r"^bpe_dropout: .*: its tokenizer has no merges to be skipped; give 0$"):
        Merges(toy)
