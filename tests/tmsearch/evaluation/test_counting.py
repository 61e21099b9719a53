"""WER counted right: properties against jiwer itself, and the texts that a count goes wrong on."""

import random

import jiwer
import pytest

from tmsearch.data.text_normalizer import normalizer
from tmsearch.evaluation.evaluate import score

WORDS = ["over", "out", "two", "2", "can't", "colour", "gray", "the", "uh", "niner", "é", "a", "O'Neil", "U.S.", "..."]
SPACES = [" ", "  ", "\t", "\u00a0", "\n"]


def text(rng: random.Random, most: int) -> str:
    """Words with any white space between, before and after them; now and then none at all."""
    words = [rng.choice(WORDS) for _ in range(rng.randint(0, most))]
    return rng.choice(["", *SPACES]) + "".join(word + rng.choice(SPACES) for word in words)


def edits(one) -> int:
    return one.substitutions + one.deletions + one.insertions


@pytest.mark.parametrize("language", ["en", "de"])
@pytest.mark.parametrize("seed", range(25))
def test_counts_are_jiwers_wherever_jiwer_has_an_answer(seed, language):
    """jiwer refuses an empty reference; each other clip, and their sum, must be what it says."""
    rng = random.Random(seed)
    pairs = [(text(rng, 12), text(rng, 12)) for _ in range(20)]
    normalise = normalizer(language)
    scores = score([str(place) for place in range(20)], *zip(*pairs, strict=True), language)
    compared = [(normalise(said), normalise(heard)) for said, heard in pairs]
    for clip, (said, heard) in zip(scores.clips, compared, strict=True):
        if said:
            theirs = jiwer.process_words(said, heard)
            assert edits(clip) == theirs.substitutions + theirs.deletions + theirs.insertions
            assert clip.words == len(said.split())
        else:
            assert (edits(clip), clip.words) == (len(heard.split()), 0)
    filled = [(said, heard) for said, heard in compared if said]
    extra = sum(len(heard.split()) for said, heard in compared if not said)
    theirs = jiwer.process_words([said for said, _ in filled], [heard for _, heard in filled])
    counted = theirs.substitutions + theirs.deletions + theirs.insertions
    length = theirs.substitutions + theirs.deletions + theirs.hits
    assert scores.wer == pytest.approx((counted + extra) / length)


@pytest.mark.parametrize("seed", range(10))
def test_raw_counts_are_jiwers_on_the_texts_as_written(seed):
    rng = random.Random(seed)
    pairs = [(text(rng, 8) + "end", text(rng, 8)) for _ in range(15)]
    scores = score([""] * 15, *zip(*pairs, strict=True), "en")
    said, heard = ([" ".join(one.split()) for one in side] for side in zip(*pairs, strict=True))
    assert scores.wer_raw == pytest.approx(jiwer.wer(said, heard))


@pytest.mark.parametrize("seed", range(10))
def test_what_must_hold_of_any_word_error_rate(seed):
    rng = random.Random(seed)
    said, heard = [text(rng, 9) + " end" for _ in range(12)], [text(rng, 9) for _ in range(12)]
    scores = score([""] * 12, said, heard, "de")
    assert score([""] * 12, said, said, "de").wer == 0
    assert score([""] * 12, said, [""] * 12, "de").wer == 1
    order = rng.sample(range(12), 12)
    turned = score([""] * 12, [said[place] for place in order], [heard[place] for place in order], "de")
    assert turned.wer == scores.wer
    normalise = normalizer("de")
    for clip in scores.clips:
        one, other = len(normalise(clip.reference).split()), len(normalise(clip.hypothesis).split())
        assert abs(one - other) <= edits(clip) <= max(one, other)
        assert clip.insertions - clip.deletions == other - one
    # Clips are summed before dividing: a mean of rates would weigh a clip of one word like one of nine.
    assert scores.wer == sum(map(edits, scores.clips)) / sum(clip.words for clip in scores.clips)


def test_a_reference_of_thousands_of_words_is_counted_whole():
    said = [f"word{place % 311}" for place in range(5000)]
    heard = said[:1000] + ["wrong"] * 500 + said[1500:4000]
    scores = score(["long"], [" ".join(said)], [" ".join(heard)], "de")
    assert (scores.clips[0].substitutions, scores.clips[0].deletions, scores.clips[0].insertions) == (500, 1000, 0)
    assert scores.wer == 1500 / 5000


@pytest.mark.parametrize("times", [2, 7, 400])
def test_a_hypothesis_that_repeats_itself_costs_all_its_words(times):
    scores = score(["a", "b"], ["over and out", "hold"], ["over and out " * times, "hold"], "en")
    assert scores.clips[0].insertions == 3 * (times - 1)
    assert scores.wer == 3 * (times - 1) / 4


@pytest.mark.parametrize(
    ("said", "heard"),
    [
        ("I can't, they won't, we'd have gone.", "i can not they will not we would have gone"),
        ("Don\u2019t, it\u2019s O\u2019Neil\u2019s", "Don't, it's O'Neil's"),
        ("colour of the centre, organised", "color of the center organized"),
        ("twenty-one hundred", "2,100"),
        ("one hundred and five", "105"),
        ("Mr. Smith, Dr. Jones", "mister smith doctor jones"),
        ("uh, move, um, to the gate", "Move to the gate."),
        ("(laughs) hold [noise]", "Hold!"),
        ("twenty dollars and five cents", "$20.05"),
    ],
)
def test_spellings_of_one_and_the_same_sentence_are_no_errors(said, heard):
    assert score(["a"], [said], [heard], "en").wer == 0
    assert score(["a"], [heard], [said], "en").wer == 0


@pytest.mark.parametrize(
    ("said", "heard", "errors"),
    [
        ("turn left at nine", "turn left at five", 1),
        ("fifteen", "fifty", 1),
        ("I can go", "I can't go", 1),  # can / can not
        ("do it", "don't do it", 2),  # do not do it
    ],
)
def test_what_differs_in_meaning_is_an_error(said, heard, errors):
    assert edits(score(["a"], [said], [heard], "en").clips[0]) == errors


@pytest.mark.parametrize(
    ("language", "said", "heard", "rate"),
    [
        ("fr", "L'été, c'est fini !", "l'été c'est fini", 0),
        ("fr", "L'été, c'est fini !", "lété c'est fini", 2 / 5),
        ("de", "Straße; Größe", "straße größe", 0),
        ("ru", "Ёлка — это", "ёлка это", 0),
        ("zh", "你好\uff0c世界", "你好世界", 0),
        ("ja", "こんにちは\u3002", "こんばんは", 2 / 5),
        ("de", "einundzwanzig", "21", 1),  # no table of numbers but English
    ],
)
def test_other_languages_go_through_the_basic_normaliser(language, said, heard, rate):
    assert score(["a"], [said], [heard], language).wer == rate


@pytest.mark.parametrize("said", ["", " ", "...", "\u00a0"])
def test_an_empty_reference_beside_others_adds_its_insertions_only(said):
    scores = score(["a", "b"], [said, "one two three four"], ["hm hm", "one two three"], "de")
    assert scores.wer == (2 + 1) / 4
