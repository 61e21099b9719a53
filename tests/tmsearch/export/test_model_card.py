"""The model card: what a stranger reads of a model, and what no stranger reads."""

import json

import pytest
import yaml

from tests.support import toy_whisper
from tmsearch.config import DataConfig
from tmsearch.export import final_run, runtimes
from tmsearch.export.final_run import FinalRunOptions
from tmsearch.recipe import Recipe


@pytest.fixture(scope="module")
def recipe(tmp_path_factory):
    folder = tmp_path_factory.mktemp("card")
    base = toy_whisper.whisper_folder(folder / "base-of-ours")
    (base / "README.md").write_text("---\nlicense: cc-by-4.0\n---\n# A base\n")
    data = DataConfig(dataset=str(toy_whisper.corpus_folder(folder / "corpus")), validation=3, test=3)
    return Recipe(data, toy_whisper.config(base, max_steps=1), 1)


def trained(recipe, folder, **options):
    lines = []

    def say(line, passing=False):
        lines.append(line)

    done = final_run.train(recipe, FinalRunOptions(**options), folder / "model", folder / "cache", lambda: False, say)
    assert done == "done"
    return (folder / "model" / "README.md").read_text(encoding="utf-8"), lines


def hears_everything(folders, heard):
    """What a runtime's process would answer: the transcripts, the words that a card must keep to itself."""
    texts = [clip.text for clip in heard.speech.clips(heard.clips)]
    recordings = [[(0.0, 1.0, texts[0])] for _ in heard.recordings]
    return [{runtimes.PIPELINE: {"clips": texts, "recordings": recordings}} for _ in folders]


def test_the_card_prints_transcripts_only_when_asked_for(recipe, tmp_path, monkeypatch):
    # The process itself is tried by tests/cli/commands/test_run.py.
    monkeypatch.setattr(runtimes, "_run", hears_everything)
    card, _ = trained(recipe, tmp_path)
    assert f"| {runtimes.PIPELINE} | 3 " in card
    (scores,) = (tmp_path / "model" / "test").glob("clips-*.jsonl")
    texts = [json.loads(line)["reference"] for line in scores.read_text(encoding="utf-8").splitlines()]
    assert len(texts) == 3
    assert not any(text in card for text in texts)
    assert "Worst test clips" not in card
    asked, lines = trained(recipe, tmp_path, card_transcripts=True)
    assert "now with the transcripts" in lines[-1]
    assert asked.startswith(card)
    assert "## Worst test clips" in asked
    assert any(text in asked for text in texts)
    again, lines = trained(recipe, tmp_path)
    assert again == card, "who no longer asks for them publishes none"
    assert "now without the transcripts" in lines[-1]
    head = yaml.safe_load(card.split("---\n")[1])
    assert head["base_model"] == "base-of-ours", "its name, and not where it lies"
    assert head["license"] == "cc-by-4.0"
    assert str(tmp_path.parent) not in card


@pytest.mark.parametrize(
    ("name", "base", "license_id"),
    [
        ("openai/whisper-large-v3-turbo", "openai/whisper-large-v3-turbo", "mit"),
        ("openai/whisper-tiny", "openai/whisper-tiny", "apache-2.0"),
        ("demo/nano", "nano", "mit"),
        ("nowhere at all", "nowhere at all", "unknown"),
    ],
)
def test_the_card_names_its_base_and_a_license_that_is_known_or_says_so(recipe, name, base, license_id):
    from tmsearch.export import model_card

    changed = Recipe(recipe.data, toy_whisper.config(name), 1)
    rates = {"wer": 0.5, "wer_raw": 0.5, "cer": 0.5}
    head = model_card.metadata(changed, {"validation": rates}, "model")
    assert (head["base_model"], head["license"]) == (base, license_id)
