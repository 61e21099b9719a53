"""The command report and its page: where something is missing, broken or large; and the page of a dataset."""

import re
import shutil
import subprocess
import sys

import pytest

from search import study
from search.paths import study_folder
from tests.support.command import environment
from tests.support.study_builder import Plan, random_study
from tmsearch.cli.main import main
from tmsearch.cli.services.report import study_report
from tmsearch.report import clip_cards


@pytest.fixture(scope="module")
def storage(tmp_path_factory):
    plan = Plan(configurations=4, clips=20, validation=4, seconds=0.4)
    return random_study(tmp_path_factory.mktemp("study"), plan).storage


@pytest.fixture
def copied(storage, tmp_path):
    """The study's folder, to break."""
    shutil.copytree(storage.folder, tmp_path / "studies")
    from search.storage.database import open_storage

    return open_storage(f"sqlite:///{tmp_path}/studies/tmsearch.db")


def page(storage, name):
    return study_report.page(storage, name).decode()


def words(html):
    return re.sub(r"\s+", " ", re.sub(r"<(script|style)\b.*?</\1>|<[^>]+>", " ", html, flags=re.S))


def test_the_test_split_is_nowhere(storage):
    summary = study.summarize(study.open_study(storage, "made"))
    html = page(storage, "made")
    split = summary.facts["data"]["split"]
    assert split["test"]
    for name in split["test"]:
        assert name not in html
    assert all(name in html for name in split["validation"])
    assert "devices NVIDIA H100 " in words(html)


def test_fewer_than_five_matched_pairs_are_not_shown(storage):
    assert "pairs_normalize_audio" not in page(storage, "made")


def test_a_large_page_has_the_sounds_of_the_worst_alone(storage, monkeypatch):
    full_page = page(storage, "made")
    assert "with the most errors: all would" not in full_page
    monkeypatch.setattr(clip_cards, "MAX_MEDIA", 30_000)
    small_page = page(storage, "made")
    count = small_page.count("data:audio/mpeg")
    assert 0 < count < full_page.count("data:audio/mpeg")
    assert f"Only the {count} with the most errors" in small_page


def test_a_dataset_that_is_gone_or_changed(storage, tmp_path):
    data = storage.folder.parent / "clips"
    away = data.rename(data.with_name("away"))
    try:
        text = words(page(storage, "made"))
        assert "No sound and no pictures: the dataset cannot be read here" in text
        assert "As written" in text, "the texts are in the study's own tables"
        shutil.copytree(away, data)
        (data / "0003.flac").unlink()
        assert "No sound and no pictures: the dataset" in words(page(storage, "made"))
    finally:
        shutil.rmtree(data, ignore_errors=True)
        away.rename(data)


def test_trials_of_another_machine(copied):
    shutil.rmtree(study_folder(copied.folder, "made"))
    html = page(copied, "made")
    assert "was trained on another machine, or its files were removed" in words(html)
    assert "There is no table of clips to count them in" in words(html)
    assert "<audio" not in html


def test_a_broken_table(copied):
    for file in (study_folder(copied.folder, "made") / "trials").rglob("clips-*.jsonl"):
        file.write_text("{half")
    assert "cannot be read" in words(page(copied, "made"))


def run(capsys, *arguments):
    code = main(arguments)
    captured = capsys.readouterr()
    return code, captured.out, captured.err


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


def test_a_report_imports_no_torch_and_leaves_optuna_to_a_process_of_its_own(storage, tmp_path):
    program = (
        "import sys; from tmsearch.cli.main import main\n"
        f"assert main(['report', 'made', '-o', 'page.html', '--storage', 'sqlite:///{storage.file}']) == 0\n"
        "print([name for name in ('torch', 'transformers', 'datasets', 'optuna') if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, env=environment(tmp_path), capture_output=True, text=True
    )
    assert done.stdout.endswith("[]\n"), done.stdout + done.stderr
    assert done.stderr == ""


def test_a_study_without_a_result(tmp_path):
    storage = random_study(tmp_path, Plan(configurations=1, clips=12, validation=3, running=True, seconds=0.3)).storage
    text = words(page(storage, "made"))
    for part in ("No configuration has a result yet", "There is no result to draw yet", "No time has been spent yet"):
        assert part in text


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
    data, file = storage.folder.parent / "clips", tmp_path / "data.html"
    code, _, err = run(capsys, "data", str(data), "--html", str(file), "--transcribe", "demo/nano")
    assert (code, err) == (0, "")
    text = words(file.read_text(encoding="utf-8"))
    assert "transcribed 20 clips" in text
    assert "It is a hint and no more" in text


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
    text = words(html)
    assert "2 configurations were trained elsewhere; none of them can be the best" in text
    assert "imported (2)" in html, "with curves of their own"
    assert "standard deviation of 2" in text
    best = r"Trial \d+ at step 400"
    assert re.search(best, text)[0] == re.search(best, before)[0]
