"""CSV logs: one's own tables, and what TensorBoard and Weights & Biases export."""

import pytest

from tmsearch.errors import InputError
from tmsearch.importers import hand_runs

KNOBS = ("learning_rate", "max_steps", "dropout", "batch_size")


def read_text(folder, name, text):
    file = folder / name
    file.write_text(text)
    return hand_runs.read(file, KNOBS)


def test_a_rate_that_decays_within_a_run_is_taken_at_its_highest_and_said(tmp_path):
    text = "step,wer_raw,learning_rate,dropout,batch_size\n2,.9,9e-4,0.1,16\n4,.8,1e-3,0.2,16.0\n6,.7,5e-5,0.1,16\n"
    (run,) = read_text(tmp_path, "log.csv", text)
    assert run.params == {"learning_rate": "1e-3", "batch_size": "16"}
    assert run.remarks[0].startswith("learning_rate varies within the run: its highest, 1e-3, is taken for the peak")
    assert run.remarks[1].startswith("dropout varies within the run and is left out; --set dropout=VALUE")
    assert len(run.remarks) == 2


def test_a_rate_spelt_in_two_ways_does_not_vary(tmp_path):
    (run,) = read_text(tmp_path, "log.csv", "step,wer_raw,learning_rate\n2.0,.9,1e-3\n4.0,.8,0.001\n")
    assert (run.params, run.remarks, run.curve) == ({"learning_rate": "0.001"}, (), ((2, 0.9), (4, 0.8)))


@pytest.mark.parametrize(
    ("name", "run_name", "measure"),
    [
        ("run-small_lr1e-5-tag-eval_wer.csv", "small_lr1e-5", None),
        ("run_small_tag_eval_wer_raw (1).csv", "small", "raw"),
        ("tag-wer_normalised.csv", "tag-wer_normalised", "normalised"),
        ("wer.csv", "wer", None),
    ],
)
def test_tensorboards_export(tmp_path, name, run_name, measure):
    text = "Wall time,Step,Value\n1700000000.1,20,0.5\n1700000001.2,40,0.25\n"
    (run,) = read_text(tmp_path, name, text)
    assert (run.name, run.curve, run.measure, run.ending) == (run_name, ((20, 0.5), (40, 0.25)), measure, "unknown")


def test_tensorboards_export_of_another_scalar_is_refused(tmp_path):
    for name in ("run-x-tag-train_loss.csv", "answer.csv"):
        with pytest.raises(InputError, match="is not a WER's; export eval/wer"):
            read_text(tmp_path, name, "Wall time,Step,Value\n1.5,20,0.5\n")


def test_weights_and_biases_export_of_a_chart(tmp_path):
    header = '"train/global_step","a - b - eval/wer","a - b - eval/wer__MIN","a - b - eval/wer__MAX","c - eval/wer"'
    text = f'{header}\n"20","0.5","0.5","0.5",""\n"30","","","","0.7"\n"40","0.25","0.25","0.25","0.6"\n'
    first, second = read_text(tmp_path, "wandb_export_2026.csv", text)
    assert (first.name, first.curve, first.remarks) == ("a - b", ((20, 0.5), (40, 0.25)), ())
    assert (second.name, second.curve) == ("c", ((30, 0.7), (40, 0.6)))
    by_own_count = text.replace("train/global_step", "Step")
    assert "Weights & Biases' own count" in read_text(tmp_path, "x.csv", by_own_count)[0].remarks[0]
    with pytest.raises(InputError, match="its horizontal axis is Relative Time"):
        read_text(tmp_path, "x.csv", text.replace("train/global_step", "Relative Time (Process)"))


def test_weights_and_biases_history_goes_by_the_training_step(tmp_path):
    text = "_step,train/global_step,eval/wer,train/loss\n0,10,,1.5\n1,20,0.5,\n2,20,,\n3,40,0.25,\n"
    (run,) = read_text(tmp_path, "history.csv", text)
    assert (run.curve, run.remarks) == (((20, 0.5), (40, 0.25)), ())


def test_weights_and_biases_table_of_runs(tmp_path):
    text = (
        "Name,State,train/global_step,eval/wer,learning_rate,max_steps\n"
        "a,finished,40,0.25,1e-5,40\nb,crashed,20,0.5,1e-4,40\n"
    )
    runs = read_text(tmp_path, "runs.csv", text)
    assert [(run.name, run.curve, run.ending) for run in runs] == [
        ("a", ((40, 0.25),), "finished"),
        ("b", ((20, 0.5),), "crashed"),
    ]
    assert [run.params["learning_rate"] for run in runs] == ["1e-5", "1e-4"]
