"""What TensorBoard shows of a study: every trial, with parameters, final values, sounds and pictures, each once."""

import html
import json
import re
import time
import urllib.request

import optuna
import pytest

from search.dashboard.publisher import Publisher
from search.space.search_space import Space
from tests.cli.commands.test_serve import ended, served
from tests.support.study_builder import (
    HOSTILE_DEFAULT,
    HOSTILE_SAMPLED,
    HOSTILE_SCRIPT,
    hostile_scores,
    hostile_study,
)
from tmsearch.cli.services.annotator import StudyAnnotator
from tmsearch.training.state import StepMetrics
from tmsearch.training.tensorboard import TrialLog


def trained(folder, params, *steps, begun=0, beyond=0):
    """Events of a training from `begun` over the rungs `steps`, killed `beyond` steps after the last."""
    choices = {"model": ["demo/nano", "demo/micro"], "normalize_audio": [True, False]}
    with TrialLog(folder, begun, {**params, "normalize_audio": True}, choices) as logbook:
        for step in range(begun + 1, steps[-1] + beyond + 1 if steps else beyond + 1):
            logbook.add_step(StepMetrics(step, 1.0 / step, 1e-3, 1.0, 0.1))
            if step in steps:
                logbook.add_evaluation(step, dict.fromkeys(("wer", "wer_raw", "cer"), 1.0 / step), hostile_scores(1))


@pytest.fixture(scope="module")
def fetch(tmp_path_factory):
    """The data that TensorBoard's pages are made of: a function of its address."""
    folder = tmp_path_factory.mktemp("board")
    ledger = hostile_study(folder)
    runs = folder / "studies" / "made_up" / "tensorboard"
    trained(runs / "0000", HOSTILE_DEFAULT, 20)
    trained(runs / "0001", HOSTILE_SAMPLED, 20, beyond=7)  # killed at 27, and gone on with from 20
    trained(runs / "0001", HOSTILE_SAMPLED, 40, 80, begun=20)
    trained(runs / "0002", HOSTILE_SAMPLED, beyond=3)  # failed before its first rung
    trained(runs / "0003", HOSTILE_SAMPLED, 20)
    for _ in range(2):  # the second finds everything made
        Publisher(
            ledger, Space.from_json(dict(ledger.record().space)), pytest.fail, StudyAnnotator(ledger, print)
        ).publish()
        optuna.delete_study(study_name="made_up", storage=ledger.storage.optuna)
        with ledger.storage.write() as connection:
            connection.exec_driver_sql("UPDATE tmsearch_configuration SET published = 0")
    assert [len(list((runs / f"000{number}").glob("*ended*"))) for number in range(4)] == [1, 1, 1, 1]
    line, port, process = served(folder, "tensorboard", "made_up")
    assert f"http://127.0.0.1:{port}/" in line

    def get(path, **sent):
        data = json.dumps(sent).encode() if sent else None
        address, headers = f"http://127.0.0.1:{port}/data/{path}", {"Content-Type": "application/json"}
        request = urllib.request.Request(address, data, headers)
        with urllib.request.urlopen(request, timeout=20) as answer:
            return json.loads(answer.read())

    until = time.monotonic() + 60
    while len(get("plugin/images/tags")) < 3 and time.monotonic() < until:
        time.sleep(0.2)
    yield get
    assert ended(process) == (130, "")


def test_every_trial_with_its_parameters_and_final_values(fetch):
    metrics = [{"metric": {"tag": name, "group": ""}, "includeInResult": True} for name in ("wer", "cer")]
    knobs = [{"hparam": name, "includeInResult": True} for name in ("learning_rate", "model", "normalize_audio")]
    hparam_infos = fetch("plugin/hparams/experiment", experimentName="")["hparamInfos"]
    listed = {info["name"]: info.get("domainDiscrete") for info in hparam_infos}
    assert listed == {
        "learning_rate": None,
        "model": ["demo/nano", "demo/micro"],
        "normalize_audio": ["true", "false"],
    }, "a word that is not listed would be filtered away"
    statuses = ["STATUS_SUCCESS", "STATUS_FAILURE", "STATUS_RUNNING", "STATUS_UNKNOWN"]
    groups = fetch(
        "plugin/hparams/session_groups",
        experimentName="", allowedStatuses=statuses, colParams=[*knobs, *metrics], startIndex=0, sliceSize=99,
    )["sessionGroups"]  # fmt: skip
    sessions = {
        group["name"]: (
            group["hparams"],
            {value["name"]["tag"]: (value["trainingStep"], value["value"]) for value in group["metricValues"]},
            group["sessions"][0]["status"],
        )
        for group in groups
    }
    lowest = dict.fromkeys(("wer", "wer_raw", "cer"), (20, pytest.approx(1 / 20)))
    final = dict.fromkeys(("wer", "wer_raw", "cer"), (80, pytest.approx(1 / 80)))
    assert sessions == {
        "0000": ({**HOSTILE_DEFAULT, "normalize_audio": "true"}, lowest, "STATUS_SUCCESS"),
        "0001": ({**HOSTILE_SAMPLED, "normalize_audio": "true"}, final, "STATUS_SUCCESS"),
        "0002": ({**HOSTILE_SAMPLED, "normalize_audio": "true"}, {}, "STATUS_FAILURE"),
        "0003": ({**HOSTILE_SAMPLED, "normalize_audio": "true"}, lowest, "STATUS_SUCCESS"),
    }


def test_scalars_once_also_after_a_kill(fetch):
    points = fetch("plugin/scalars/scalars?run=0001&tag=wer")
    assert [step for _, step, _ in points] == [20, 40, 80]
    losses = [step for _, step, _ in fetch("plugin/scalars/scalars?run=0001&tag=loss")]
    assert losses == list(range(1, 81))


def test_sounds_pictures_and_texts(fetch):
    for plugin, kind in (("audio", "clip"), ("images", "spectrogram")):
        tags = fetch(f"plugin/{plugin}/tags")
        assert {run: sorted(names) for run, names in tags.items()} == {
            run: [f"{kind}/best", f"{kind}/middle", f"{kind}/worst"] for run in ("0000", "0001", "0003")
        }
    (sound,) = fetch("plugin/audio/audio?run=0001&tag=clip%2Fworst&sample=0")
    assert (sound["step"], sound["contentType"]) == (80, "audio/wav")
    (picture,) = fetch("plugin/images/images?run=0001&tag=spectrogram%2Fworst&sample=0")
    assert picture["step"] == 80
    texts = fetch("plugin/text/text?run=0001&tag=worst_clips%2Ftext_summary")
    assert [text["step"] for text in texts] == [20, 40, 80]
    shown = texts[-1]["text"]
    assert set(re.findall(r"<(\w+)", shown)) == {"table", "thead", "tbody", "tr", "th", "td"}
    assert f"<script>{HOSTILE_SCRIPT}</script><img src=x onerror={HOSTILE_SCRIPT}>" in html.unescape(shown)
