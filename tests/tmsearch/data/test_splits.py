"""The one split: sizes, groups kept whole, no dependence on order, and errors that name the knob."""

import itertools
import json
import random

import pytest

from tmsearch.config import DataConfig
from tmsearch.data.corpus import Clip, Corpus
from tmsearch.data.splits import Split, split
from tmsearch.errors import InputError


def corpus_of(rows):
    """`rows`: (name, sentence, *column=value)."""
    clips = tuple(Clip(name, sentence, 1.0, (sentence, *values)) for name, sentence, *values in rows)
    return Corpus(clips, (), "0")


def divide(rows, **settings):
    return split(corpus_of(rows), DataConfig(dataset="x", **settings))


def sizes(parts):
    return len(parts.train), len(parts.validation), len(parts.test)


def singletons(count):
    return [(f"{index:04d}.wav", f"sentence {index}") for index in range(count)]


def check_whole(rows, parts, columns=()):
    """Every clip once; no sentence and no value of `columns` in two parts."""
    names = [*parts.train, *parts.validation, *parts.test]
    assert sorted(names) == sorted(row[0] for row in rows)
    where = {name: title for title in ("train", "validation", "test") for name in getattr(parts, title)}
    part_of = {}
    for name, sentence, *values in rows:
        for key in (sentence, *(value for value in values if value.partition("=")[0] in columns)):
            assert part_of.setdefault(key, where[name]) == where[name], key


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, (70, 15, 15)),
        ({"validation": 124, "test": 0}, (76, 24, 0)),
        ({"validation": 20.0, "test": 5}, (75, 20, 5)),
        ({"validation": 0.001, "test": 0.0}, (99, 1, 0)),
    ],
)
def test_fractions_and_counts(settings, expected):
    rows = singletons(200 if settings.get("validation") == 124 else 100)
    if settings.get("validation") == 124:
        expected = (76, 124, 0)
    parts = divide(rows, **settings)
    assert sizes(parts) == expected
    check_whole(rows, parts)


def test_seeded_and_independent_of_the_order_of_rows():
    rows = [(f"{index}.wav", f"sentence {index // 3}", f"speaker={index % 17}") for index in range(300)]
    first = divide(rows)
    shuffled = rows[:]
    random.Random(1).shuffle(shuffled)
    assert divide(shuffled) == first
    assert divide(rows, split_seed=43).validation != first.validation


def test_a_split_draws_evenly():
    rows = singletons(100)
    hits = dict.fromkeys((row[0] for row in rows), 0)
    for seed in range(200):
        for name in divide(rows, split_seed=seed).validation:
            hits[name] += 1
    assert min(hits.values()) >= 10
    assert max(hits.values()) <= 55  # 30 expected, standard deviation 5


def test_sentences_and_speakers_stay_whole_through_any_chain():
    generator = random.Random(0)
    rows = [
        (f"{index}.wav", f"sentence {generator.randrange(150)}", f"speaker_id={index // 8}") for index in range(240)
    ]
    by_speaker = [(name, f"{sentence} of {speaker}", speaker) for name, sentence, speaker in rows]
    parts = divide(by_speaker)
    check_whole(by_speaker, parts, columns=["speaker_id"])
    assert parts.grouped_by == ("sentence", "speaker_id")
    assert sizes(parts) == (176, 32, 32)  # whole speakers of 8 clips, 36 and 36 were wanted
    # Shared sentences chain every speaker to every other: the column is dropped, the sentences are not.
    parts = divide(rows)
    check_whole(rows, parts)
    assert parts.grouped_by == ("sentence",)


def test_the_coarser_column_is_dropped_first():
    rows = [(f"{index}.wav", f"s {index}", f"speaker={index // 50}", f"session={index // 5}") for index in range(100)]
    parts = divide(rows)
    assert parts.grouped_by == ("sentence", "session")
    check_whole(rows, parts, columns=["session"])
    assert sizes(parts) == (70, 15, 15)


def test_a_named_column_never_dropped():
    rows = [(f"{index}.wav", f"s {index}", f"room={index // 40}") for index in range(120)]
    parts = divide(rows, group_column="room")
    assert sizes(parts) == (40, 40, 40)
    assert parts.grouped_by == ("sentence", "room")
    with pytest.raises(InputError, match=r"data\.group_column: room leaves 2 groups"):
        divide(rows[:80], group_column="room")
    assert sizes(divide(rows[:80], group_column="room", test=0)) == (40, 40, 0)
    with pytest.raises(InputError, match=r"data\.group_column: room holds no value"):
        divide(singletons(50), group_column="room")


@pytest.mark.parametrize("seed", range(25))
def test_as_near_as_any_choice_of_groups(seed):
    generator = random.Random(seed)
    counts = [generator.choice([1, 2, 3, 5, 8, 20]) for _ in range(7)]
    rows = [(f"{group}-{index}.wav", f"s {group}") for group, count in enumerate(counts) for index in range(count)]
    total = sum(counts)
    validation, test = max(1, round(0.25 * total)), max(1, round(0.2 * total))
    parts = divide(rows, validation=0.25, test=0.2)
    check_whole(rows, parts)
    got = (len(parts.validation) - validation) ** 2 + (len(parts.test) - test) ** 2
    best = min(
        (sum(c for c, p in zip(counts, plan, strict=True) if p == 1) - validation) ** 2
        + (sum(c for c, p in zip(counts, plan, strict=True) if p == 2) - test) ** 2
        for plan in itertools.product(range(3), repeat=len(counts))
        if set(plan) == {0, 1, 2}
    )
    assert got <= best + 2  # one subset is tried for each sum, which may cost a clip in each part


def test_one_huge_group_goes_to_train():
    rows = [(f"{index}.wav", "the same again") for index in range(80)] + singletons(20)
    parts = divide(rows)
    assert sizes(parts) == (80, 10, 10)  # 15 and 15 were wanted


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"validation": 1.5}, "data.validation: 1.5"),
        ({"validation": 1.0}, "data.validation: 1.0"),
        ({"test": 2.5}, "data.test: 2.5"),
        ({"validation": 0}, "data.validation: 0 leaves nothing"),
        ({"validation": 0.0}, "data.validation: 0 leaves nothing"),
        ({"validation": 0.6, "test": 0.4}, "60 clips for validation and 40 for test leave none of 100"),
        ({"validation": 100, "test": 0}, "leave none of 100"),
        ({"validation": float("nan")}, "data.validation: nan"),
        ({"test": float("inf")}, "data.test: inf"),
        ({"test": -1}, "data.test: -1"),
    ],
)
def test_impossible_sizes_name_the_key(settings, expected):
    with pytest.raises(InputError) as error:
        divide(singletons(100), **settings)
    assert expected in str(error.value)
    assert "\n" not in str(error.value)


def test_too_few_sentences():
    with pytest.raises(InputError, match="2 different sentences in 10 clips are too few"):
        divide([(f"{index}.wav", f"s {index % 2}") for index in range(10)])


def test_json_round_trip():
    parts = divide(singletons(20))
    assert Split.from_json(json.loads(json.dumps(parts.to_json()))) == parts


def test_ten_thousand_clips_take_no_time():
    rows = [(f"{index}.wav", f"s {index // 2}", f"session={index // 100}") for index in range(10_000)]
    parts = divide(rows)
    assert sizes(parts) == (7_000, 1_500, 1_500)


def test_folds_are_disjoint_and_leave_the_test_split_alone():
    rows = singletons(60)
    folds = [divide(rows, validation=10, test=12, fold=fold) for fold in range(4)]
    assert folds[0] == divide(rows, validation=10, test=12)
    assert {fold.test for fold in folds} == {folds[0].test}
    validated = [name for fold in folds for name in fold.validation]
    assert len(validated) == len(set(validated)) == 40
    for fold in folds:
        check_whole(rows, fold)
    with pytest.raises(InputError, match=r"data\.fold: 9: there are only 5 disjoint validation sets of 10 clips"):
        divide(rows, validation=10, test=12, fold=9)


def test_folds_keep_groups_whole():
    rows = [(f"{index:03d}", f"sentence {index}", f"speaker={index // 4}") for index in range(60)]
    for fold in range(3):
        check_whole(rows, divide(rows, validation=12, test=12, fold=fold), ("speaker",))
