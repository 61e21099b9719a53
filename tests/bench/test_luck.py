"""The page on the best of twenty says what the recorded trainings say, in 400 words and two pictures."""

from pathlib import Path

import pytest

from tests.bench import luck

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "search/best_of_twenty.md"


@pytest.fixture(scope="module")
def page():
    return PAGE.read_text(encoding="utf-8")


def test_its_figures_are_those_of_the_simulation(page):
    said = luck.figures()
    for name in ("tiny", "tiny, 48 clips", "demo"):
        assert said[name].replace("%", " %") in page, name
    for name in ("mean", "first best", "again"):
        assert said[name].removeprefix("0") in page, name
    assert f'"{said["first advantage"].replace("%", " %")} fewer errors"' in page
    assert said["again"] == said["mean"], "luck does not come along"


def test_it_is_short_and_has_two_pictures(page):
    assert len(page.split()) <= 400
    assert page.count("](../studies/pictures/luck-") == 2


def test_its_pictures_are_those_that_its_command_draws(tmp_path, monkeypatch):
    monkeypatch.setattr(luck, "SEARCHES_A_POINT", 2)
    for drawn in luck.draw(tmp_path):
        committed = (ROOT / "studies/pictures" / drawn.name).read_text(encoding="utf-8")
        texts = [line for line in drawn.read_text(encoding="utf-8").splitlines() if "<text" in line]
        words = [line.partition(">")[2] for line in texts if "font-size: 12" in line or "fill: #" in line]
        assert words
        assert all(word in committed for word in words)


def test_more_tries_and_fewer_clips_look_better():
    table = luck.sure.read(luck.sure.TABLES[0])
    few, many = (luck.simulated(table, 48, 200, configurations=count).advantage for count in (2, 20))
    assert 0 < few < many
    assert luck.simulated(table, 120, 200).advantage < many
