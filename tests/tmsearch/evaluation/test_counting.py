"""WER counted right: properties against jiwer itself, and the texts that a count goes wrong on."""

import random

import jiwer
import pytest

from tmsearch.data.text_normalizer import normalizer
from tmsearch.evaluation.error_rates import score

WORDS = ["over", "out", "two", "2", "can't", "colour", "gray", "the", "uh", "niner", "é", "a", "O'Neil", "U.S.", "..."]
SPACES = [" ", "  ", "\t", "\u00a0", "\n"]


def text(rng: random.Random, most: int) -> str:
    """Words with any white space between, before and after them; now and then none at all."""
    words = [rng.choice(WORDS) for _ in range(rng.randint(0, most))]
    return rng.choice(["", *SPACES]) + "".join(word + rng.choice(SPACES) for word in words)


def edits(clip) -> int:
    return clip.substitutions + clip.deletions + clip.insertions


@pytest.mark.parametrize("language", ["en", "de"])
@pytest.mark.parametrize("seed", range(25))
def test_counts_are_jiwers_wherever_jiwer_has_an_answer(seed, language):
    """jiwer refuses an empty reference; each other clip, and their sum, must be what it says."""
    rng = random.Random(seed)
    pairs = [(text(rng, 12), text(rng, 12)) for _ in range(20)]
    normalize = normalizer(language)
    scores = score([str(index) for index in range(20)], *zip(*pairs, strict=True), language)
    compared = [(normalize(reference), normalize(hypothesis)) for reference, hypothesis in pairs]
    for clip, (reference, hypothesis) in zip(scores.clips, compared, strict=True):
        if reference:
            expected = jiwer.process_words(reference, hypothesis)
            assert edits(clip) == expected.substitutions + expected.deletions + expected.insertions
            assert clip.words == len(reference.split())
        else:
            assert (edits(clip), clip.words) == (len(hypothesis.split()), 0)
    filled = [(reference, hypothesis) for reference, hypothesis in compared if reference]
    extra = sum(len(hypothesis.split()) for reference, hypothesis in compared if not reference)
    expected = jiwer.process_words([reference for reference, _ in filled], [hypothesis for _, hypothesis in filled])
    counted = expected.substitutions + expected.deletions + expected.insertions
    length = expected.substitutions + expected.deletions + expected.hits
    assert scores.wer == pytest.approx((counted + extra) / length)


@pytest.mark.parametrize("seed", range(10))
def test_raw_counts_are_jiwers_on_the_texts_as_written(seed):
    rng = random.Random(seed)
    pairs = [(text(rng, 8) + "end", text(rng, 8)) for _ in range(15)]
    scores = score([""] * 15, *zip(*pairs, strict=True), "en")
    reference, hypothesis = ([" ".join(written.split()) for written in texts] for texts in zip(*pairs, strict=True))
    assert scores.wer_raw == pytest.approx(jiwer.wer(reference, hypothesis))


@pytest.mark.parametrize("seed", range(10))
def test_what_must_hold_of_any_word_error_rate(seed):
    rng = random.Random(seed)
    reference, hypothesis = [text(rng, 9) + " end" for _ in range(12)], [text(rng, 9) for _ in range(12)]
    scores = score([""] * 12, reference, hypothesis, "de")
    assert score([""] * 12, reference, reference, "de").wer == 0
    assert score([""] * 12, reference, [""] * 12, "de").wer == 1
    order = rng.sample(range(12), 12)
    turned = score([""] * 12, [reference[index] for index in order], [hypothesis[index] for index in order], "de")
    assert turned.wer == scores.wer
    normalize = normalizer("de")
    for clip in scores.clips:
        reference_words = len(normalize(clip.reference).split())
        hypothesis_words = len(normalize(clip.hypothesis).split())
        assert abs(reference_words - hypothesis_words) <= edits(clip) <= max(reference_words, hypothesis_words)
        assert clip.insertions - clip.deletions == hypothesis_words - reference_words
    # Clips are summed before dividing: a mean of rates would weigh a clip of one word like one of nine.
    assert scores.wer == sum(map(edits, scores.clips)) / sum(clip.words for clip in scores.clips)


def test_a_reference_of_thousands_of_words_is_counted_whole():
    reference = [f"word{index % 311}" for index in range(5000)]
    hypothesis = reference[:1000] + ["wrong"] * 500 + reference[1500:4000]
    scores = score(["long"], [" ".join(reference)], [" ".join(hypothesis)], "de")
    assert (scores.clips[0].substitutions, scores.clips[0].deletions, scores.clips[0].insertions) == (500, 1000, 0)
    assert scores.wer == 1500 / 5000


@pytest.mark.parametrize("times", [2, 7, 400])
def test_a_hypothesis_that_repeats_itself_costs_all_its_words(times):
    scores = score(["a", "b"], ["over and out", "hold"], ["over and out " * times, "hold"], "en")
    assert scores.clips[0].insertions == 3 * (times - 1)
    assert scores.wer == 3 * (times - 1) / 4


@pytest.mark.parametrize(
    ("reference", "hypothesis"),
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
def test_spellings_of_one_and_the_same_sentence_are_no_errors(reference, hypothesis):
    assert score(["a"], [reference], [hypothesis], "en").wer == 0
    assert score(["a"], [hypothesis], [reference], "en").wer == 0


@pytest.mark.parametrize(
    ("reference", "hypothesis", "errors"),
    [
        ("turn left at nine", "turn left at five", 1),
        ("fifteen", "fifty", 1),
        ("I can go", "I can't go", 1),  # can / can not
        ("do it", "don't do it", 2),  # do not do it
    ],
)
def test_what_differs_in_meaning_is_an_error(reference, hypothesis, errors):
    assert edits(score(["a"], [reference], [hypothesis], "en").clips[0]) == errors


@pytest.mark.parametrize(
    ("language", "reference", "hypothesis", "rate"),
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
def test_other_languages_go_through_the_basic_normaliser(language, reference, hypothesis, rate):
    assert score(["a"], [reference], [hypothesis], language).wer == rate


@pytest.mark.parametrize("reference", ["", " ", "...", "\u00a0"])
def test_an_empty_reference_beside_others_adds_its_insertions_only(reference):
    scores = score(["a", "b"], [reference, "one two three four"], ["hm hm", "one two three"], "de")
    assert scores.wer == (2 + 1) / 4


def test_vowel_errors_of_hindi_count():
    reference = "हिन्दी में किताब पढ़ता हूँ"
    hypothesis = "हिन्दा में किताबो पढ़ती हूँ"
    scores = score(["a"], [reference], [hypothesis], "Hindi")
    assert scores.wer == scores.wer_raw == 0.6
    assert scores.cer > 0
    assert score(["a"], [reference], [hypothesis], "hi", "whisper").wer == 0  # what studies before 0.2.0 counted


def test_a_language_without_spaces_is_counted_by_character_whatever_it_is_called():
    for name in ("ja", "Japanese", "jpn"):
        scores = score(["a"], ["今日はいい天気"], ["今日はいい元気"], name)
        assert scores.wer == scores.cer == 1 / 7
        assert (scores.clips[0].character_edits, scores.clips[0].characters) == (1, 7)
