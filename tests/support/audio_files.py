"""Small datasets on disk for the tests: a tone a clip, as a folder or as an Arrow table."""

import io

import numpy as np
import pyarrow as pa
import soundfile


def wav(seconds=0.2, frequency=300.0, rate=16_000):
    encoded = io.BytesIO()
    samples = 0.3 * np.sin(2 * np.pi * frequency * np.arange(int(seconds * rate)) / rate)
    soundfile.write(encoded, samples, rate, format="WAV")
    return encoded.getvalue()


def speech_folder(folder, *names):
    folder.mkdir(parents=True)
    lines = [f"{name}.wav,sentence {name}" for name in names]
    (folder / "metadata.csv").write_text("\n".join(["file_name,text", *lines]) + "\n")
    for index, name in enumerate(names):
        (folder / f"{name}.wav").write_bytes(wav(frequency=200.0 + 50 * index))
    return folder


def struct_table(names, texts=None, **columns):
    audio = [{"bytes": wav(frequency=200.0 + 50 * index), "path": name} for index, name in enumerate(names)]
    return pa.table({"audio": audio, "text": texts or [f"sentence {index}" for index in range(len(names))], **columns})
