"""A proposed space file: it loads, and budget, batch, context, models and knobs follow the clips and the machine."""

import pytest

from search.errors import UserError
from tmsearch.cli.services.knobs import load_space
from tmsearch.config import DataConfig
from tmsearch.data.audio_file import Recording
from tmsearch.data.corpus import Clip, Corpus
from tmsearch.data.splits import split
from tmsearch.data_quality import suggest_space


def corpus_of(count, seconds=4.0, spread_db=0.0, median_db=-20.0):
    """Clips without audio; their levels are spread evenly."""
    clips = []
    for index in range(count):
        level = 10 ** ((median_db + spread_db * (index / max(1, count - 1) - 0.5)) / 20)
        recording = Recording(sample_rate=16_000, channels=1, peak=2 * level, rms=level, clipped=0.0)
        clips.append(Clip(f"{index:05d}.wav", f"Sentence {index}.", seconds, (f"sentence {index}",), recording))
    return Corpus(tuple(clips), (), "f")


def proposed(corpus, tmp_path, **more):
    share = suggest_space.parts(len(corpus.clips))[0]
    given = {"dataset": "me/throat", "validation": share, "test": share}
    config = DataConfig(**{**given, **more.pop("data", {})})
    options = {"gpu_gb": 80.0, "gpu_why": "for a GPU of 80 GB", **more}
    proposal = suggest_space.propose(
        corpus, config, split(corpus, config), study="throat", language_why="as asked", **options
    )
    file = tmp_path / "space.yaml"
    file.write_text(proposal.text(), encoding="utf-8")
    return load_space(str(file), (), None), proposal


@pytest.mark.parametrize(
    ("count", "batch", "steps"), [(20, 4, (64, 72)), (60, 8, (80, 100)), (180, 16, (120, 160)), (1000, 16, (800, 900)),
                                  (20_000, 32, (2000, 2000))]
)  # fmt: skip
def test_size_says_steps_batch_and_rungs(tmp_path, count, batch, steps):
    space, proposal = proposed(corpus_of(count), tmp_path)
    train = len(split(corpus_of(count), DataConfig(**space.data)).train)
    assert space.train["batch_size"] == batch
    assert steps[0] <= space.budget.max_steps <= steps[1]
    passes = space.budget.max_steps * batch / train
    assert 3 <= passes <= 24
    assert len(space.budget.rungs) >= 3
    assert all(later == 2 * rung for rung, later in zip(space.budget.rungs, space.budget.rungs[1:], strict=False))
    warmup = space.search["warmup_steps"]
    assert warmup.high <= 0.15 * space.budget.max_steps
    assert all(len(line) <= 200 for line in proposal.assumptions())


@pytest.mark.parametrize(("seconds", "context"), [(0.2, 1.0), (4.0, 4.5), (11.3, 11.5), (29.9, 30.0)])
def test_durations_say_the_context(tmp_path, seconds, context):
    space, _ = proposed(corpus_of(100, seconds), tmp_path)
    assert space.train["context_seconds"] == context


@pytest.mark.parametrize(
    ("gpu", "models"),
    [(0.0, ["tiny.en", "base.en"]), (4.0, ["tiny.en", "base.en"]), (8.0, ["base.en", "small"]),
     (24.0, ["small", "medium"]), (80.0, ["small", "large-v3"])],
)  # fmt: skip
def test_memory_says_the_models(tmp_path, gpu, models):
    space, _ = proposed(corpus_of(100), tmp_path, gpu_gb=gpu)
    assert list(space.search["model"].values) == [f"openai/whisper-{name}" for name in models]
    german, _ = proposed(corpus_of(100), tmp_path, gpu_gb=gpu, data={"language": "de"})
    assert not any(name.endswith(".en") for name in german.search["model"].values)


def test_one_model_is_fixed_with_its_own_range_and_an_unknown_one_gets_a_wide_one(tmp_path):
    space, _ = proposed(corpus_of(100), tmp_path, models=["openai/whisper-large-v3"])
    assert space.train["model"] == "openai/whisper-large-v3"
    assert (space.search["learning_rate"].low, space.search["learning_rate"].high) == (1.5e-6, 3e-5)
    assert space.start[0]["learning_rate"] == 5e-6
    for models in (["me/finetuned"], ["me/finetuned", "openai/whisper-small"]):
        wide, _ = proposed(corpus_of(100), tmp_path, models=models)
        assert wide.search["learning_rate"].high == 1e-3
        assert "learning_rate" not in wide.start[0]


@pytest.mark.parametrize(("spread", "searched"), [(2.0, False), (20.0, True)])
def test_levels_say_whether_normalisation_is_searched(tmp_path, spread, searched):
    space, _ = proposed(corpus_of(300, spread_db=spread), tmp_path)
    assert ("normalize_audio" in space.search) is searched
    assert ("normalize_audio" in space.train) is not searched


HOSTILE = [
    "it's: a \"test\" #1", "- {x: y}", "наушник 목 🎙", "שלום/a", "yes", "1e-5", "%TAG", " lead", "back\\slash",
]  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_names_read_back_as_they_were(tmp_path, name):
    space, proposal = proposed(corpus_of(50), tmp_path, data={"dataset": name, "text_column": name})
    assert space.data["dataset"] == space.data["text_column"] == name
    comments = [line for line in proposal.text().splitlines() if line.lstrip().startswith("#")]
    assert not any(name in line for line in comments)


def test_a_name_that_a_space_cannot_hold_is_refused_before_anything_is_written(tmp_path):
    for name in ("bell\x07", "line\u2028end", "tab\t"):
        with pytest.raises(UserError, match="cannot be shown"):
            proposed(corpus_of(50), tmp_path, data={"dataset": name})


@pytest.mark.parametrize(
    ("gpu", "knobs"),
    [
        (80.0, {}),
        (24.0, {"low_memory": True}),
        (15.0, {"low_memory": True, "gradient_checkpointing": True}),
    ],
)
def test_a_card_gets_what_lets_the_model_fit(tmp_path, gpu, knobs):
    space, proposal = proposed(corpus_of(200, seconds=9.0), tmp_path, gpu_gb=gpu, models=["openai/whisper-large-v3"])
    savings = ("low_memory", "gradient_checkpointing")
    assert {name: value for name, value in space.train.items() if name in savings} == knobs
    assert sum("predicted" in line for line in proposal.assumptions()) == len(knobs)
    assert proposal.trial_seconds > 10


def test_a_card_that_is_too_small_is_said_so(tmp_path):
    _, proposal = proposed(corpus_of(200), tmp_path, gpu_gb=6.0, models=["openai/whisper-large-v3"])
    assert any("6 GB are too few" in line for line in proposal.assumptions())


def test_without_a_gpu_no_time_is_predicted(tmp_path):
    assert proposed(corpus_of(200), tmp_path, gpu_gb=0.0)[1].trial_seconds is None
