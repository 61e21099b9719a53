"""The report's parts: text, pairs, reasons; and the command where something is missing."""

import json
import re
import shutil
import subprocess
import sys

import pytest

from search import study
from search.study import study_folder
from tests.support.command import environment
from tests.support.made_study import Plan, make
from tmsearch.cli.commands.report import page
from tmsearch.cli.main import main
from tmsearch.model import sizes
from tmsearch.report import charts, clip_cards, matched_pairs, sanitize
from tmsearch.report.matched_pairs import MatchCandidate
from tmsearch.report.records import TrialRow


@pytest.fixture(scope="module")
def storage(tmp_path_factory):
    return make(tmp_path_factory.mktemp("study"), Plan(configurations=4, clips=20, validation=4, seconds=0.4))


@pytest.fixture
def copied(storage, tmp_path):
    """The study's folder, to break."""
    shutil.copytree(storage.folder, tmp_path / "studies")
    from search.storage.database import open_storage

    return open_storage(f"sqlite:///{tmp_path}/studies/tmsearch.db")


def words(html):
    return re.sub(r"\s+", " ", re.sub(r"<(script|style)\b.*?</\1>|<[^>]+>", " ", html, flags=re.S))


def test_what_hides_is_shown():
    assert sanitize.visible("a\x00b\u202ec\ud800") == "a\\x00b\\u202ec\\ud800"
    for kept in ("\u05e9\u05dc\u05d5\u05dd", "\U0001f469\u200d\U0001f680", "don't", "\u4e2d\u6587"):
        assert sanitize.visible(kept) == kept
    assert sanitize.label("<b>" + "x" * 100) == "&lt;b&gt;" + "x" * 56 + "\u2026"
    assert "<" not in sanitize.script_json({"a": "</script>&"})
    assert json.loads(sanitize.script_json({"a": "</script>&\u2028"})) == {"a": "</script>&\u2028"}


@pytest.mark.parametrize(("count", "said"), [(900, "900 bytes"), (38_000, "38 kB"), (3_200_000, "3.2 MB")])
def test_sizes_in_words(count, said):
    assert sanitize.size(count) == said


def candidate(number, on, rate, errors, model="m", **more):
    return MatchCandidate(number, on, model, {"learning_rate": rate, **more}, errors)


def test_pairs_are_near_and_of_one_model():
    words = [10] * 8
    found = matched_pairs.paired(
        [
            candidate(0, True, 1e-4, [1] * 8),
            candidate(1, False, 1.1e-4, [2] * 8),
            candidate(2, True, 1e-6, [3] * 8),
            candidate(3, False, 1.2e-6, [4] * 8),
            candidate(4, True, 1e-4, [9] * 8, model="other"),
            candidate(5, False, 1e-2, [9] * 8),  # too far from any
            candidate(6, True, 1e-4, [9] * 3),  # of other clips
        ],
        words,
    )
    assert sorted((one.on, one.off) for one in found.pairs) == [(0, 1), (2, 3)]
    assert found.difference == pytest.approx(-0.1)
    assert found.low == pytest.approx(-0.1)
    assert found.left == 3
    assert "factor" in found.how
    assert matched_pairs.paired([candidate(0, True, 1e-4, [1] * 8)], words) is None


def test_an_interval_over_pairs_is_wider_than_one_over_clips():
    words = [10] * 30
    apart = [
        candidate(2 * n + side, bool(side), 1e-4 * 10**n, [3 + (n if side else 0)] * 30)
        for n in range(4)
        for side in (0, 1)
    ]
    found = matched_pairs.paired(apart, words)
    assert all(one.low == pytest.approx(one.high) for one in found.pairs)
    assert found.low < found.difference < found.high
    assert found.difference == pytest.approx(0.15)


def test_one_that_diverged_does_not_flatten_the_rest():
    assert charts.heights([0.3] * 99 + [50.0], ())["range"][1] < 1
    assert charts.heights([0.3, 0.4, 0.5], ())["range"][1] > 0.5


def test_sizes_of_models():
    assert 1 < sizes.parameters("demo/micro") < 2
    assert sizes.parameters("openai/whisper-large-v3") > sizes.parameters("openai/whisper-tiny.en") == 39
    assert sizes.parameters("someone/else") is None


def test_the_test_split_is_nowhere(storage):
    summary = study.summarize(study.open_study(storage, "made"))
    html = page(storage, "made")
    split = summary.facts["data"]["split"]
    assert split["test"]
    for name in split["test"]:
        assert name not in html
    assert all(name in html for name in split["validation"])
    assert "devices NVIDIA H100 " in words(html)


def test_a_large_page_has_the_sounds_of_the_worst_alone(storage, monkeypatch):
    whole = page(storage, "made")
    assert "with the most errors: all would" not in whole
    monkeypatch.setattr(clip_cards, "LARGEST", 30_000)
    less = page(storage, "made")
    count = less.count("data:audio/mpeg")
    assert 0 < count < whole.count("data:audio/mpeg")
    assert f"those of the {count} with the most errors" in less


def test_a_dataset_that_is_gone_or_changed(storage, tmp_path):
    data = storage.folder.parent / "clips"
    away = data.rename(data.with_name("away"))
    try:
        said = words(page(storage, "made"))
        assert "No sound and no pictures: the dataset cannot be read here" in said
        assert "As written" in said, "the texts are in the study's own tables"
        shutil.copytree(away, data)
        (data / "0003.flac").unlink()
        assert "No sound and no pictures: the dataset" in words(page(storage, "made"))
    finally:
        shutil.rmtree(data, ignore_errors=True)
        away.rename(data)


def test_trials_of_another_machine(copied):
    shutil.rmtree(study_folder(copied, "made"))
    html = page(copied, "made")
    assert "was trained on another machine, or its files were removed" in words(html)
    assert "There is no table of clips to count them in" in words(html)
    assert "<audio" not in html


def test_a_broken_table(copied):
    for file in (study_folder(copied, "made") / "trials").rglob("clips-*.jsonl"):
        file.write_text("{half")
    assert "cannot be read" in words(page(copied, "made"))


def run(capsys, *arguments):
    code = main(arguments)
    said = capsys.readouterr()
    return code, said.out, said.err


def test_the_command_says_where_and_writes_over_its_own_only(storage, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    url = f"sqlite:///{storage.file}"
    code, out, err = run(capsys, "report", "made", "--storage", url)
    assert (code, err) == (0, "")
    assert re.fullmatch(r"made-report.html: \d\.\d MB; open it in any browser\n", out)
    assert run(capsys, "report", "made", "--storage", url)[0] == 0, "again"
    (tmp_path / "mine.html").write_text("<p>a page of somebody's</p>")
    for output, part in (("mine.html", "not a page of tmsearch"), (".", "is a folder"), ("none/a.html", "no folder")):
        code, out, err = run(capsys, "report", "made", "--storage", url, "-o", output)
        assert (code, out, len(err.splitlines())) == (2, "", 1)
        assert part in err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["made-report.html", "mine.html"]
    assert run(capsys, "report", "nothing", "--storage", url)[0] == 2


def test_a_report_imports_no_torch(storage, tmp_path):
    program = (
        "import sys; from tmsearch.cli.main import main\n"
        f"assert main(['report', 'made', '-o', 'page.html', '--storage', 'sqlite:///{storage.file}']) == 0\n"
        "print([name for name in ('torch', 'transformers', 'datasets') if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, env=environment(tmp_path), capture_output=True, text=True
    )
    assert done.stdout.endswith("[]\n"), done.stdout + done.stderr
    assert done.stderr == ""


def test_a_study_without_a_result(tmp_path):
    storage = make(tmp_path, Plan(configurations=1, clips=12, validation=3, running=True, seconds=0.3))
    said = words(page(storage, "made"))
    for part in ("No configuration has a result yet", "There is no result to draw yet", "Nothing has been spent yet"):
        assert part in said


def test_hovering_shows_text():
    line = TrialRow(1, "pruned", {"model": "<b>x</b>"}, "", ((1, 0.5),), 1.0)
    assert "&lt;b&gt;x" in charts.hover(line, 1, 0.5)


def test_a_datasets_page(storage, tmp_path, capsys):
    data = storage.folder.parent / "clips"
    file = tmp_path / "data.html"
    code, out, err = run(capsys, "data", str(data), "--html", str(file))
    assert (code, err) == (0, "")
    assert "open it in any browser" in out
    html = file.read_text(encoding="utf-8")
    assert "Clips to hear" in html
    assert html.count("<audio") <= 40
    refused = run(capsys, "data", str(data), "--transcribe", "demo/nano")
    assert refused[0] == 2
    assert "--html" in refused[2]


def test_transcripts_that_a_model_disagrees_with(storage, tmp_path, capsys):
    from tmsearch.data_quality import label_errors
    from tmsearch.evaluation.scores import ClipScore

    right = ClipScore("right", "a b c d", "a b c e", 1, 0, 0, 4)
    loop = ClipScore("loop", "a b c d", "a b c d" + " d" * 90, 0, 0, 90, 4)
    wrong = ClipScore("wrong", "a b c d", "w x y z v w", 4, 0, 2, 4)
    assert [one.name for one in label_errors.ranked([right, loop, wrong])] == ["wrong", "loop", "right"]
    data, file = storage.folder.parent / "clips", tmp_path / "data.html"
    code, _, err = run(capsys, "data", str(data), "--html", str(file), "--transcribe", "demo/nano")
    assert (code, err) == (0, "")
    said = words(file.read_text(encoding="utf-8"))
    assert "transcribed 20 clips" in said
    assert "It is a hint and no more" in said


CSV = """run,step,wer_normalised,learning_rate,normalize_audio,max_steps,warmup_steps,model
a,50,0.02,2e-5,true,400,50,openai/whisper-small
a,400,0.01,2e-5,true,400,50,openai/whisper-small
b,400,0.03,2e-5,true,400,50,openai/whisper-small
"""


def test_what_was_trained_elsewhere_is_shown_and_never_the_best(copied, tmp_path, capsys):
    (tmp_path / "log.csv").write_text(CSV)
    before = words(page(copied, "made"))
    code, out, err = run(capsys, "import", "made", str(tmp_path / "log.csv"), "--storage", f"sqlite:///{copied.file}")
    assert code == 0, out + err
    html = page(copied, "made")
    said = words(html)
    assert "2 configurations were trained elsewhere; none of them can be the best" in said
    assert "imported (2)" in html, "with curves of their own"
    assert "standard deviation of 2" in said
    best = r"Trial \d+ at step 400"
    assert re.search(best, said)[0] == re.search(best, before)[0]
