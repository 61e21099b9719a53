import dataclasses
import errno
import hashlib
import json
import os
import resource
import shutil
import struct
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from safetensors.torch import save as library_bytes

from tmsearch.errors import CheckpointError
from tmsearch.training import checkpoints, tensor_file
from tmsearch.training.checkpoints import Checkpoint, VerifiedCheckpoints

ROOT = Path(__file__).parents[3]


def a_checkpoint(step, value=1.0):
    tensors = {"weights": {"a": torch.full((4, 3), value)}, "moments": {"exp_avg/a": torch.ones(4, 3)}, "random": {}}
    return Checkpoint(step, tensors, {"config": "abc", "losses": [0.1 + 0.2]})


def test_what_is_saved_comes_back_to_the_bit(tmp_path):
    saved = a_checkpoint(40, value=0.1)
    folder = checkpoints.save(tmp_path / "new" / "deep", saved)
    assert folder == tmp_path / "new" / "deep" / "step-000040"
    back = checkpoints.load(folder)
    assert back.step == 40
    assert back.state == {"config": "abc", "losses": [0.1 + 0.2], "step": 40}
    assert torch.equal(back.tensors["weights"]["a"], saved.tensors["weights"]["a"])
    assert set(back.tensors) == {"weights", "moments", "random"}


def test_nothing_is_pickled(tmp_path):
    folder = checkpoints.save(tmp_path, a_checkpoint(1))
    assert {path.suffix for path in folder.iterdir()} == {".safetensors", ".json"}


def damage_cut(folder):
    file = folder / "weights.safetensors"
    file.write_bytes(file.read_bytes()[:-1])


def damage_flip(folder):
    file = folder / "moments.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)


def damage_state(folder):
    file = folder / "state.json"
    file.write_text(file.read_text().replace("abc", "abd"))


def damage_missing(folder):
    (folder / "weights.safetensors").unlink()


def damage_no_manifest(folder):
    (folder / "manifest.json").unlink()


def damage_odd_manifest(folder):
    (folder / "manifest.json").write_text("[]")


def damage_half_manifest(folder):
    file = folder / "manifest.json"
    file.write_text(file.read_text()[:20])


DAMAGES = [
    damage_cut,
    damage_flip,
    damage_state,
    damage_missing,
    damage_no_manifest,
    damage_odd_manifest,
    damage_half_manifest,
]


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_checkpoint_is_refused_and_passed_by(tmp_path, damage):
    older = checkpoints.save(tmp_path, a_checkpoint(20))
    folder = checkpoints.save(tmp_path, a_checkpoint(40))
    damage(folder)
    with pytest.raises(CheckpointError, match="step-000040"):
        checkpoints.load(folder)
    assert checkpoints.latest(tmp_path) == older


def test_a_renamed_checkpoint_is_refused(tmp_path):
    folder = checkpoints.save(tmp_path, a_checkpoint(40))
    renamed = folder.rename(tmp_path / "step-000050")
    with pytest.raises(CheckpointError, match="holds step 40"):
        checkpoints.load(renamed)
    with pytest.raises(CheckpointError, match="not named like a checkpoint"):
        checkpoints.load(renamed.rename(tmp_path / "fifty"))


def test_the_newest_up_to_a_step_is_found_among_odd_folders(tmp_path):
    assert checkpoints.latest(tmp_path / "absent") is None
    for step in (9, 40, 100):
        checkpoints.save(tmp_path, a_checkpoint(step))
    for odd in (".pending-step-000200-abc", "step-x", "step-", "step-300", "other"):
        shutil.copytree(tmp_path / "step-000100", tmp_path / odd)
    (tmp_path / "step-000400").write_text("a file")
    assert checkpoints.latest(tmp_path) == tmp_path / "step-000100"
    assert checkpoints.latest(tmp_path, at_most=99) == tmp_path / "step-000040"
    assert checkpoints.latest(tmp_path, at_most=8) is None


def test_keeping_some_deletes_the_others_and_what_interrupted_writes_left(tmp_path):
    for step in (10, 20, 30):
        checkpoints.save(tmp_path, a_checkpoint(step))
    shutil.copytree(tmp_path / "step-000010", tmp_path / ".pending-step-000040-abc")
    (tmp_path / "config.yaml").write_text("kept")
    checkpoints.keep_only(tmp_path, [20, 99])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["config.yaml", "step-000020"]


def test_saving_a_step_again_replaces_it(tmp_path):
    checkpoints.save(tmp_path, a_checkpoint(40, value=1.0))
    folder = checkpoints.save(tmp_path, a_checkpoint(40, value=2.0))
    assert checkpoints.load(folder).tensors["weights"]["a"][0, 0] == 2.0
    assert [path.name for path in tmp_path.iterdir()] == ["step-000040"]


KILLED = """
import os, signal, sys
sys.path.insert(0, {root!r})
import torch
from pathlib import Path
from tmsearch.training import checkpoints, tensor_file

calls = 0
last_words = 10**9
def mortal(original):
    def wrapped(*arguments, **named):
        global calls
        calls += 1
        if calls == last_words:
            os.kill(os.getpid(), signal.SIGKILL)
        return original(*arguments, **named)
    return wrapped

for module, name in (
    (checkpoints, "sync"), (checkpoints, "discard"), (tensor_file, "write"), (tensor_file, "_bytes_of")
):
    setattr(module, name, mortal(getattr(module, name)))
checkpoints.json.dumps = mortal(checkpoints.json.dumps)
tensors = {{"weights": {{"a": torch.zeros(3)}}, "moments": {{"b": torch.zeros(3)}}}}
checkpoint = checkpoints.Checkpoint(40, tensors, {{}})
checkpoints.save(Path({folder!r}) / "0", checkpoint)
for at in range(1, calls + 1):
    if (child := os.fork()) == 0:
        calls, last_words = 0, at
        checkpoints.save(Path({folder!r}) / str(at), checkpoint)
        os._exit(0)
    assert os.waitpid(child, 0)[1] == signal.SIGKILL, at
print(calls)
"""


def test_a_process_killed_anywhere_in_a_write_leaves_the_one_before(tmp_path):
    """At each tensor file, each tensor, each JSON, each sync; the last sync comes when the new one is in place."""
    for at in range(20):
        checkpoints.save(tmp_path / str(at), a_checkpoint(20))
    script = KILLED.format(root=str(ROOT), folder=str(tmp_path))
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    places = int(done.stdout)
    assert 10 < places < 20
    survivors = []
    for at in range(1, places + 1):
        folder = tmp_path / str(at)
        newest = checkpoints.latest(folder)
        survivors.append(checkpoints.load(newest).step)
        checkpoints.keep_only(folder, survivors)
        assert {path.name for path in folder.iterdir()} <= {"step-000020", "step-000040"}
    assert survivors == [20] * (places - 1) + [40]


def test_the_manifest_names_every_file(tmp_path):
    folder = checkpoints.save(tmp_path, a_checkpoint(40))
    named = set(json.loads((folder / "manifest.json").read_text()))
    assert named | {"manifest.json"} == {path.name for path in folder.iterdir()}


def test_weights_are_restored_bit_for_bit_even_where_they_are_odd(tmp_path):
    odd = torch.tensor([struct.unpack("f", struct.pack("I", bits))[0] for bits in (1, 0x80000000, 0x7F7FFFFF)])
    folder = checkpoints.save(tmp_path, Checkpoint(1, {"weights": {"odd": odd}}, {}))
    back = checkpoints.load(folder).tensors["weights"]["odd"]
    assert back.view(torch.int32).tolist() == odd.view(torch.int32).tolist()


def test_a_checkpoint_of_another_training_is_passed_by(tmp_path):
    checkpoints.save(tmp_path / "claim-000001", a_checkpoint(20))
    foreign = dataclasses.replace(a_checkpoint(40), state={"config": "of another trial"})
    checkpoints.save(tmp_path / "claim-000002", foreign)
    usable = checkpoints.latest_of_claims(tmp_path, 40, {"config": "abc"})
    assert usable == tmp_path / "claim-000001" / "step-000020"
    assert checkpoints.latest_of_claims(tmp_path, 40, {"config": "abc"}, unusable=[usable]) is None


@pytest.fixture
def small_files():
    """A file of more than 200 bytes cannot be written."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200, limits[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_a_full_disk_is_the_systems_error_and_leaves_nothing(tmp_path, small_files):
    large = Checkpoint(40, {"weights": {"a": torch.zeros(1000)}}, {})
    with pytest.raises(OSError, match="File too large") as error:
        checkpoints.save(tmp_path, large)
    assert error.value.errno == errno.EFBIG
    assert not list(tmp_path.iterdir())


def test_the_files_are_those_of_the_library(tmp_path):
    """Every type of number, no dimension, no element: the library reads what is written, and would write as much."""
    tensors = {
        "half": torch.tensor([1.5, -2.0], dtype=torch.bfloat16),
        "long": torch.arange(6).reshape(2, 3),
        "bytes": torch.arange(5, dtype=torch.uint8),
        "switches": torch.tensor([True, False, True]),
        "single": torch.tensor(3.0),
        "none": torch.zeros(0, 4),
        "turned": torch.arange(6.0).reshape(2, 3).T,
    }
    digest = tensor_file.write(tmp_path / "ours.safetensors", tensors)
    content = (tmp_path / "ours.safetensors").read_bytes()
    assert digest == hashlib.sha256(content).hexdigest()
    back = load_file(tmp_path / "ours.safetensors")
    assert back.keys() == tensors.keys()
    assert all(torch.equal(back[name], tensor) and back[name].dtype == tensor.dtype for name, tensor in tensors.items())
    assert len(content) == len(library_bytes({name: tensor.contiguous() for name, tensor in tensors.items()}))
    with pytest.raises(ValueError, match="odd: safetensors has no type"):
        tensor_file.write(tmp_path / "odd", {"odd": torch.zeros(1, dtype=torch.complex64)})


@pytest.fixture
def hashed(monkeypatch):
    """Bytes that went through a SHA-256, in writing and in reading."""
    counted = []

    class Counting:
        def __init__(self, content=b""):
            self._digest = hashlib_sha256(content)
            counted.append(len(content))

        def update(self, content):
            counted.append(len(content))
            self._digest.update(content)

        def hexdigest(self):
            return self._digest.hexdigest()

    hashlib_sha256 = hashlib.sha256
    monkeypatch.setattr(hashlib, "sha256", Counting)

    def taken():
        total = sum(counted)
        counted.clear()
        return total

    return taken


def test_every_byte_is_hashed_once_in_writing_and_once_in_a_process_that_reads(tmp_path, hashed):
    own, other = VerifiedCheckpoints(), VerifiedCheckpoints()
    folder = checkpoints.save(tmp_path, a_checkpoint(40), own)
    size = sum(path.stat().st_size for path in folder.iterdir() if path.name != "manifest.json")
    assert hashed() == size
    for verified, expected in ((own, 0), (other, size), (other, 0)):
        assert checkpoints.latest(tmp_path, verified=verified) == folder
        assert hashed() == expected
        checkpoints.load(folder, verified)
        assert hashed() == 0
    damage_flip(folder)
    os.utime(folder / "moments.safetensors", ns=(1, 1))  # a clock's tick may not have passed since
    assert checkpoints.latest(tmp_path, verified=other) is None
    assert hashed() > 0
    with pytest.raises(CheckpointError, match="does not match its checksum"):
        checkpoints.load(folder, other)


def test_only_the_newest_of_this_claim_and_of_earlier_ones_stays(tmp_path):
    for token, step in ((1, 20), (1, 40), (2, 60), (4, 60)):
        checkpoints.save(checkpoints.claim_folder(tmp_path, token), a_checkpoint(step))

    def there():
        return sorted(str(path.relative_to(tmp_path)) for path in tmp_path.glob("*/*"))

    checkpoints.keep_only_newest(tmp_path, 3, tmp_path / "claim-000001/step-000040")
    assert there() == ["claim-000001/step-000040", "claim-000004/step-000060"], "the third claim saved nothing"
    checkpoints.keep_only_newest(tmp_path, 4, tmp_path / "claim-000004/step-000060")
    assert there() == ["claim-000004/step-000060"]
    checkpoints.keep_only_newest(tmp_path, 5, None)
    assert there() == []
