"""From a search to a model that can be trusted, with the real commands: confirm, export, train, card."""

import json
import re
import signal
import time
from pathlib import Path

import pytest
import yaml

from tests.support.command import SPACE, start
from tests.support.command import tmsearch as tmsearch_process
from tests.support.in_process import tmsearch
from tmsearch.evaluation.comparison import Contender, Training, compare, required_sample_size
from tmsearch.export import soups
from tmsearch.export.soups import Ingredient

FINAL = (
    "train",
    "best.yaml",
    "--average",
    "2",
    "--soup",
    "small",
    "--dtype",
    "bfloat16",
    "--card-transcripts",
    "--no-runtimes",
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A search that has ended, and a confirmation of it that was killed on the way and resumed."""
    here = tmp_path_factory.mktemp("confirm") / "study"
    here.mkdir()
    (here / "space.yaml").write_text(SPACE)
    done = tmsearch(here, "run", "--space", "space.yaml", "--trials", "4")
    assert done.returncode == 0, done.stderr
    return here


@pytest.fixture(scope="module")
def dry(folder):
    """What `confirm --dry-run` said before anything was confirmed, and the files that it changed."""
    before = file_contents(folder)
    planned = tmsearch(folder, "confirm", "small", "--top", "2", "--seeds", "2", "--dry-run", "--price", "36")
    assert (planned.returncode, planned.stderr) == (0, "")
    changed = dict(file_contents(folder).items() ^ before.items())
    return planned.stdout.splitlines(), changed


def file_contents(folder):
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def confirmed(folder, dry):
    """What `confirm` said at last."""
    begun = start(folder, "confirm", "small", "--top", "2", "--seeds", "2")
    for line in begun.stdout:
        if "finished" in line:
            break
    begun.send_signal(signal.SIGKILL)
    begun.wait()
    time.sleep(0.5)
    again = tmsearch_process(folder, "confirm", "small")
    assert again.returncode == 0, again.stderr
    assert again.stderr == ""
    return again.stdout


def trainings(folder):
    done = tmsearch(folder, "status", "small-confirm", "--json")
    return json.loads(done.stdout)["configurations"]


def test_a_dry_run_says_what_the_confirmation_says_then_and_leaves_no_trace(dry, confirmed):
    lines, changed = dry
    assert changed == {}
    assert lines[0].startswith("study small-confirm: at most 5 trainings of 6 steps; sqlite:///")
    assert lines[1:5] == confirmed.splitlines()[:4]
    text = "\n".join(lines)
    for part in (
        "data demo: 200 clips",
        "MB to train, ",
        "estimate: at most 5 trainings, about ",
        "disk: 1.6 MB of weights a training",
        "dollars at 36 dollars an hour",
    ):
        assert part in text
    assert lines[-1] == "nothing was written; the same command without --dry-run starts the study"


def test_a_confirmation_prints_its_cost_first_and_ends_with_a_sentence(folder, confirmed):
    lines = confirmed.splitlines()
    assert lines[0].startswith("confirm small: default recipe against trial")
    assert "up to 2 trainings each, seeds 1 to 2, on the study's own split" in lines[0]
    assert any(re.match(r"at most 5 trainings, about \d+:\d\d", line) for line in lines)  # as fast as the machine is
    verdicts = ("Not proven: ", "No better: ", "trial ")
    assert any(line.startswith(verdicts) and "validation clips" in line for line in lines)
    assert any(line.startswith("Wilcoxon over clips") for line in lines)
    configurations = trainings(folder)
    assert len(configurations) == 6
    assert {configuration["params"]["seed"] for configuration in configurations} == {1, 2}
    assert not any(configuration["state"] in ("queued", "running", "paused") for configuration in configurations)


def test_the_same_command_again_trains_nothing(folder, confirmed):
    before = trainings(folder)
    again = tmsearch(folder, "confirm", "small")
    assert again.returncode == 0
    assert "starts" not in again.stdout
    assert trainings(folder) == before
    assert again.stdout.splitlines()[-3:] == confirmed.splitlines()[-3:]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--top", "3"), "--top: was started with 2"),
        (("--folds", "2"), "--folds: was started with 0"),
        (("--budget", "soon"), "--budget"),
    ],
)
def test_another_plan_is_refused_in_one_line(folder, confirmed, words, message):
    refused = tmsearch(folder, "confirm", "small", *words)
    assert refused.returncode == 2
    assert len(refused.stderr.splitlines()) == 1
    assert message in refused.stderr


def test_a_confirmation_is_not_confirmed(folder, confirmed):
    assert "is a confirmation itself" in tmsearch(folder, "confirm", "small-confirm").stderr


def test_the_test_split_is_read_once(folder, confirmed):
    first = tmsearch(folder, "confirm", "small", "--test")
    assert first.returncode == 0, first.stderr
    assert "the locked test split, 6 clips, is read now" in first.stdout
    second = tmsearch(folder, "confirm", "small", "--test")
    assert "was already read on 20" in second.stdout
    assert second.stdout.splitlines()[-2:] == first.stdout.splitlines()[-2:]
    assert "on 6 test clips" in first.stdout.splitlines()[-2]


def test_export_carries_its_evidence_and_train_ends_with_a_card(folder, confirmed):
    assert tmsearch(folder, "export", "small", "-o", "best.yaml").returncode == 0
    recipe_file = yaml.safe_load((folder / "best.yaml").read_text())
    assert recipe_file["split"]["validation"] == 8
    assert recipe_file["evidence"]["confirm"]["sentence"] in confirmed
    assert {"torch", "transformers", "python"} <= set(recipe_file["versions"])
    done = tmsearch(folder, *FINAL)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    metrics = json.loads((folder / "best" / "metrics.json").read_text())
    assert metrics["tried"][metrics["kept"]] == min(metrics["tried"].values()) == metrics["validation"]["wer"]
    assert set(metrics["tried"]) >= {"the last weights", "average of the last 2 checkpoints"}
    for split in ("test", "test_trimmed", "test_zero_shot"):
        for rate in ("wer", "wer_raw"):
            low, high = metrics[split][f"{rate}_interval"]
            assert low <= metrics[split][rate] <= high
    assert not (folder / "best" / "training").exists()
    refused = tmsearch(folder, "train", "best.yaml")
    assert refused.returncode == 2
    assert "other options" in refused.stderr


def test_the_hub_reads_the_card(folder, confirmed):
    from huggingface_hub import ModelCard

    if not (folder / "best" / "README.md").exists():
        tmsearch(folder, "export", "small", "-o", "best.yaml")
        assert tmsearch(folder, *FINAL).returncode == 0
    card = ModelCard.load(folder / "best" / "README.md")
    assert card.data.pipeline_tag == "automatic-speech-recognition"
    results = {result.metric_name: result for result in card.data.eval_results}
    metrics = json.loads((folder / "best" / "metrics.json").read_text())
    assert results["WER, normalised"].metric_type == "wer"
    assert results["WER, normalised"].metric_value == pytest.approx(metrics["test"]["wer"], abs=1e-4)
    assert results["WER, normalised"].dataset_split == "test"
    assert str(folder) not in card.content, "where a folder lies is nobody else's business"
    for part in (
        "## Worst test clips",
        "zero-shot",
        "default recipe",
        "## Recipe",
        "with other seeds in",
        "The confirmation takes",
    ):
        assert part in card.content
    assert "The confirmation takes" in card.content


def test_a_recipe_changed_by_hand_loses_its_evidence(folder, confirmed):
    assert tmsearch(folder, "export", "small", "-o", "mine.yaml").returncode == 0
    text = (folder / "mine.yaml").read_text()
    (folder / "mine.yaml").write_text(text.replace("max_steps: 6", "max_steps: 2"))
    done = tmsearch(folder, "train", "mine.yaml", "--on-all", "--no-runtimes")
    assert done.returncode == 0, done.stderr
    assert "changed since it was exported" in done.stdout
    assert "on 194 clips" in done.stdout, "186 to train and 8 to validate"
    card = (folder / "mine" / "README.md").read_text()
    assert "no search stands behind" in card
    assert "(trained on)" in card
    refused = tmsearch(folder, "train", "mine.yaml", "--on-all", "--average", "3")
    assert refused.returncode == 2
    assert "--on-all" in refused.stderr


def test_arguments_for_somebodys_own_script(folder, confirmed):
    from transformers import HfArgumentParser, Seq2SeqTrainingArguments

    done = tmsearch(folder, "export", "small", "--trial", "0", "--format", "hf", "-o", "arguments.json")
    assert done.returncode == 0
    assert "not among Seq2SeqTrainingArguments: model=demo/nano" in done.stderr
    (trainer_arguments,) = HfArgumentParser(Seq2SeqTrainingArguments).parse_json_file(str(folder / "arguments.json"))
    assert (
        trainer_arguments.learning_rate,
        trainer_arguments.max_steps,
        trainer_arguments.per_device_train_batch_size,
    ) == (1e-3, 6, 4)
    assert trainer_arguments.lr_scheduler_type == "linear"


def test_a_push_without_a_token_is_refused_before_anything_is_trained(folder, confirmed):
    assert tmsearch(folder, "export", "small", "-o", "push.yaml").returncode == 0
    refused = tmsearch(folder, "train", "push.yaml", "--push-to-hub", "me/throat", HF_TOKEN="")
    assert refused.returncode == 2
    assert refused.stderr.count("\n") == 1
    assert "HF_TOKEN is not set" in refused.stderr
    assert not (folder / "push").exists()


def test_a_budget_ends_a_confirmation_and_a_larger_one_goes_on(folder, confirmed):
    done = tmsearch(folder, "confirm", "small", "--seeds", "3", "--budget", "1s")
    assert done.returncode == 0
    assert "the budget is spent" in done.stdout
    assert "not known yet" in done.stdout or "better" in done.stdout.lower()


def test_folds_have_validation_sets_of_their_own(tmp_path_factory, folder):
    here = tmp_path_factory.mktemp("folds")
    for name in ("space.yaml",):
        (here / name).write_text(SPACE.replace("[2, 4, 6]", "[6]"))
    assert tmsearch(here, "run", "--space", "space.yaml", "--trials", "2").returncode == 0
    refused = tmsearch(here, "confirm", "small", "--folds", "99")
    assert "--folds: 99: the clips beside the test split make" in refused.stderr
    done = tmsearch(here, "confirm", "small", "--top", "1", "--seeds", "2", "--folds", "2")
    assert done.returncode == 0, done.stderr
    configs = sorted(Path(here).glob("studies/small-confirm/trials/*/config.yaml"))
    assert {yaml.safe_load(config.read_text())["data"]["fold"] for config in configs} == {0, 1}
    assert "on 16 validation clips" in done.stdout


def trained(seed, rate, clips=60, fold=0):
    import random

    rng = random.Random(f"{seed}/{rate}")
    errors = tuple(sum(rng.random() < rate for _ in range(10)) for _ in range(clips))
    return Training(seed, fold, errors, (10,) * clips)


def recipe(name, rate, fate="", seeds=3):
    return Contender(name, tuple(trained(f"{name}{seed}", rate) for seed in range(seeds)), fate)


def test_sentences_that_a_person_can_quote():
    default = recipe("default", 0.30)
    won = compare(default, [recipe("trial 4", 0.15), recipe("trial 5", 0.29)], 0.05)
    assert won.is_significant
    assert won.sentence().startswith("trial 4 makes ")
    assert "fewer word errors than the default recipe: WER 0.1" in won.sentence()
    even = compare(default, [recipe("trial 4", 0.30)], 0.05)
    assert not even.is_significant
    assert even.sentence().startswith(("Not proven: trial 4 was .0", "No better: the best of the others, trial 4"))
    few = [
        Contender(name, tuple(trained(f"{name}{seed}", rate, 18) for seed in range(3)), fate)
        for name, rate, fate in (("default", 0.34, ""), ("trial 4", 0.31, "no better than the baseline after 3 of 3"))
    ]
    behind = compare(few[0], few[1:], 0.05)
    assert not behind.is_significant
    assert re.match(
        r"Not proven: trial 4 was \.0\d\d better on average, 18 clips can't rule out luck:", behind.sentence()
    )
    once = compare(recipe("default", 0.3, seeds=1), [recipe("trial 4", 0.1, seeds=1)], 0.05)
    assert not once.is_significant, "one training tells nothing of a recipe"


@pytest.mark.parametrize("clips", [6, 18, 60, 400])
def test_what_it_takes_is_a_sentence_with_numbers_that_a_person_can_act_on(clips):
    def made(name, rate):
        return Contender(name, tuple(trained(f"{name}{seed}", rate, clips) for seed in range(3)))

    advice = required_sample_size(compare(made("default", 0.34), [made("trial 4", 0.32)], 0.05))
    assert advice.endswith(".")
    assert "no number" not in advice
    for number in re.findall(r"--seeds (\d+)", advice):
        assert 3 < int(number) <= 20
    for number in re.findall(r"about (\d+) validation clips", advice):
        assert clips < int(number) <= 30 * clips


def test_who_left_the_race_does_not_win():
    verdict = compare(recipe("default", 0.3), [recipe("a", 0.1, "failed after 2 of 3"), recipe("b", 0.25)], 0.05)
    assert verdict.winner.name == "b"
    assert verdict.contenders == 2


def weights(value):
    import torch

    return {"w": torch.full((2, 2), float(value))}


def test_soups_keep_what_validation_likes():
    from tmsearch.evaluation.scores import Scores

    def score(averaged):  # best at 2
        return Scores(abs(float(averaged["w"][0, 0]) - 2.0), 0.0, 0.0, ())

    mixed = [Ingredient("a", weights(1)), Ingredient("b", weights(3)), Ingredient("c", weights(9))]
    assert float(soups.mean([ingredient.weights for ingredient in mixed])["w"][0, 0]) == pytest.approx(13 / 3)
    greedy = soups.greedy(mixed, score)
    assert greedy.scores.wer == 0.0, "1 and 3 make 2; 9 is left out"
    assert greedy.name == "greedy soup of 2 in 3"
    uniform = soups.uniform(mixed, score)
    assert soups.best([uniform, greedy]) is greedy
    assert len(soups.fitting([*mixed, Ingredient("d", {"other": weights(1)["w"]})], weights(0))) == 3
