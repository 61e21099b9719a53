"""Whatever comes in as a space file, a Space or a one-line UserError comes out."""

from __future__ import annotations

import random
import warnings

import pytest

from search.errors import UserError
from search.samplers.optuna_space import can_hold, to_distributions
from search.space import search_space
from tests.support.toy_space import DATA, FACTOR, GOOD, TRAIN, load_text


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def mutated(text, chance):
    """`text` with a few of its pieces removed, doubled, swapped or replaced."""
    nasty = ["\t", "\0", "\x1b[0m", "- ", "*a", "&a ", "!!set ", "---", "...", ".nan", ".inf", "-1", "1e999", "true"]
    nasty += ["null", "<<", "\r", "\u2028", "\ud7ff", "2024-01-01", "0x1F", "1:30", "9" * 20, "é", "{}", "[]"]
    nasty += [*'{}[]:"|>?%@~=,#\\`', "'"]
    for _ in range(chance.randint(1, 4)):
        start = chance.randrange(len(text) + 1)
        end = min(len(text), start + chance.choice([0, 0, 1, 1, 3, 10, 40]))
        piece = chance.choice([*nasty, "", text[start:end] * 2, text[chance.randrange(len(text) + 1) :][:20]])
        text = text[:start] + piece + text[end:]
    return text


def structure(chance, depth=0):
    """Random YAML in flow style, made of words that mean something here and there."""
    words = [*TRAIN, *DATA, "study", "data", "budget", "train", "search", "start", "low", "high", "log", "step"]
    words += ["times", "recommended", "1e-6", ".inf", ".nan", "-3", "0", "80", "true", "null", "''", "big", '"\\0"']
    kind = chance.random() + depth * 0.15
    if kind < 0.5:
        keys = chance.sample(words, chance.randrange(6))
        return "{" + ", ".join(f"{key}: {structure(chance, depth + 1)}" for key in keys) + "}"
    if kind < 0.65:
        return "[" + ", ".join(structure(chance, depth + 1) for _ in range(chance.randrange(4))) + "]"
    return chance.choice(words)


def outcome(*arguments):
    try:
        space = load_text(*arguments)
    except UserError as error:
        line = str(error)
    else:
        line = ""
    if line:
        assert line.isprintable()
        assert len(line) < 1000
        return "refused"
    assert search_space.Space.from_json(space.to_json()) == space
    with warnings.catch_warnings(action="error"):
        ranges = to_distributions(space.search)  # Optuna accepts what was accepted here, and each start entry
    for entry in space.start:
        for name, value in space.drawn_from_start(entry, TRAIN).items():
            assert can_hold(ranges[name], value)
    return "loaded"


def test_random_files_never_raise_anything_else():
    chance = random.Random(0)
    seen = set()
    for _ in range(600):
        seen.add(outcome(mutated(chance.choice([GOOD, FACTOR]), chance)))
    sections = ("data", "budget", "train", "search", "start")
    for _ in range(400):
        section = chance.choice(sections)
        seen.add(outcome(GOOD, f"{section}={structure(chance)}"))
        seen.add(outcome(GOOD, f"{section}.{chance.choice([*TRAIN, *DATA, 'rungs'])}={structure(chance, 2)}"))
    for _ in range(150):
        seen.add(outcome(chance.randbytes(chance.randrange(200))))
        seen.add(outcome(GOOD, mutated("search.learning_rate.low=1e-6", chance)))
    assert seen == {"loaded", "refused"}
