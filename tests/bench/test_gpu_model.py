"""What the CUDA path does, as a GPU played on this CPU shows it; times and rates are not tested."""

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.bench.gpu_player import guard
from tests.bench.gpu_player.rates import DEVICES, with_measured

BENCH = Path(__file__).parent
LAYERS = 32  # of large-v3's encoder, and of its decoder
H200 = DEVICES["H200"]


@pytest.fixture(scope="module")
def played():
    """One process plays for all tests: the guard must be loaded before torch is."""
    reason = guard.missing()
    if reason:
        pytest.skip(reason)
    command = [sys.executable, str(BENCH / "played_facts.py")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=280, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout.splitlines()[-1])


def at_large_v3(by_layers):
    """What is linear in the layers, from one layer and from two."""
    return by_layers["1"] + (LAYERS - 1) * (by_layers["2"] - by_layers["1"])


def test_the_host_never_waits_inside_a_step_or_a_token(played):
    assert not any(played["waits"])
    assert not any(played["token_waits"])


def test_clips_of_twelve_lengths_are_attended_to_in_one_launch(played):
    assert played["groups"] == [12]
    # Encoder and cross-attention of two layers each; the decoder's own tokens are of one length.
    assert played["attention"] == {"varlen": 4, "flash": 2}


def test_launches_of_a_step_and_of_a_token(played):
    # 17,013 and 1,361 at first; tests/bench/gpu_model.py step and evaluation tell which operators they are.
    assert at_large_v3(played["launches"]) <= 3_000
    assert at_large_v3(played["token_launches"]) <= 650


def test_a_step_replayed_from_graphs_is_launched_by_a_few_calls_whatever_its_layers(played):
    few, more = played["replayed_launches"]
    assert few == more <= 130  # convolutions, token table and loss among them


def test_peak_of_a_step_of_large_v3_with_moments(played):
    assert 31.6e9 < at_large_v3(played["peak_bytes"]) < 32.0e9  # 35.8e9 at first, 34.3e9 with casts made anew


def test_the_model_of_cost_is_within_a_tenth_of_what_is_played(played):
    """Else `gpu_model.py costs` prints the figures of tmsearch/model/cost.py anew, and `spaces` all settings."""
    assert played["predicted_bytes"] == pytest.approx(at_large_v3(played["peak_bytes"]), rel=0.1)
    assert played["predicted_seconds"] == pytest.approx(at_large_v3(played["seconds"]), rel=0.1)


@pytest.mark.parametrize(
    ("name", "gigabytes"),
    [("low_memory", 19.3), ("both", 13.0), ("lora_r: 32", 21.1)],
)
def test_settings_that_save_memory_take_what_is_said_of_them(played, name, gigabytes):
    """Large-v3, 16 clips at once: with both, and with adapters, there is room on cards of 24 GB."""
    fact = played["settings"][name]
    assert at_large_v3(fact["peak_bytes"]) / 1e9 == pytest.approx(gigabytes, abs=0.2)
    assert fact["predicted_bytes"] == pytest.approx(at_large_v3(fact["peak_bytes"]), rel=0.1)
    assert fact["predicted_seconds"] == pytest.approx(at_large_v3(fact["seconds"]), rel=0.1)


def test_the_rounding_adamw_takes_a_kernel_for_each_large_weight_of_a_layer(played):
    # One layer of each kind: 16 matrices, three convolutions and tables, the rest gathered, and clipping. 24 for each
    # of 46 weights before.
    assert played["rounding_launches"] <= 80


def test_one_graph_serves_all_batches_of_an_evaluation(played):
    assert played["captured"] == [True, False]


def test_measured_rates_replace_assumed_ones(tmp_path):
    lines = tmp_path / "rates.txt"
    lines.write_text("# an H200\nproducts=640\nmemory = 4.1\n")
    assert with_measured(H200, [str(lines), "kernel=2"]) == dataclasses.replace(
        H200, products=640.0, memory=4.1, kernel=2.0
    )
    lines.write_text('{"peak": 800}')
    assert with_measured(H200, [str(lines)]).peak == 800


@pytest.mark.parametrize(
    ("measured", "message"),
    [
        ("prodcts=640", "no rate prodcts; there are peak, products"),
        ("products=fast", "products: fast is no positive number"),
        ("products=-1", "products: -1 is no positive number"),
        ("nowhere.txt", "give a file of key=value lines, or key=value"),
    ],
)
def test_a_wrong_rate_is_one_line(measured, message):
    with pytest.raises(SystemExit, match=message):
        with_measured(H200, [measured])
