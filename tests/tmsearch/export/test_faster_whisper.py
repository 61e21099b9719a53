"""A trained folder through the converter of faster-whisper and its transcription; the extra faster-whisper has both."""

import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("faster_whisper", reason="faster-whisper is not installed: the extra faster-whisper has it")
ROOT = Path(__file__).parents[3]
ASSETS = ROOT.parent / "shared" / "assets"
# Converter and transcription as their users call them; the same for both folders, whatever they print.
CONVERT = """
import sys
from pathlib import Path
import soundfile
from ctranslate2.converters import TransformersConverter
from faster_whisper import WhisperModel
folder, out, clip = sys.argv[1:]
TransformersConverter(folder, copy_files=["tokenizer.json", "preprocessor_config.json"]).convert(out)
model = WhisperModel(out, device="cpu", compute_type="float32", local_files_only=True)
samples, rate = soundfile.read(clip, dtype="float32")
# One temperature: where it falls back to others it draws at random.
segments, _ = model.transcribe(samples, language="en", beam_size=1, temperature=0.0)
print(" ".join(segment.text.strip() for segment in segments))
"""
EXPORT = """
import sys
from pathlib import Path
from tmsearch.config import TrainConfig
from tmsearch.export import model_folder
from tmsearch.model import whisper as model
model_folder.export(model.load(TrainConfig(model=sys.argv[1])), Path(sys.argv[2]), "float16")
"""


def converted(folder, out):
    """(what is heard, what is printed beside it but for progress bars)."""
    clip = ASSETS / "allison-throat" / "vm-intro.flac"
    command = [sys.executable, "-c", CONVERT, str(folder), str(out), str(clip)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip(), [line for line in done.stderr.splitlines() if "Loading weights" not in line]


@pytest.mark.skipif(not ASSETS.is_dir(), reason="whisper-tiny.en and speech (shared/assets) are not here")
def test_an_exported_folder_converts_and_is_heard_as_the_untouched_checkpoint(tmp_path):
    untouched = ASSETS / "whisper-tiny.en"
    subprocess.run([sys.executable, "-c", EXPORT, str(untouched), str(tmp_path / "out")], check=True, cwd=ROOT)
    before, said_before = converted(untouched, tmp_path / "a")
    after, said_after = converted(tmp_path / "out", tmp_path / "b")
    assert before == after != ""
    assert set(said_after) <= set(said_before), "no warning that the untouched checkpoint does not print"
