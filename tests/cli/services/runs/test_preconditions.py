"""What would end a run after half a minute ends it, and its plan, at once; nothing is written before."""

import pytest

from tests.support.command import SPACE
from tmsearch.cli.main import main
from tmsearch.cli.services.runs import preconditions, search


@pytest.fixture(params=[(), ("--dry-run",)], ids=["run", "plan"])
def refused(request, tmp_path, monkeypatch, capsys):
    """A run, or its plan, in an empty folder: what it prints as it ends with 2, before any work."""

    def trained():
        raise AssertionError("it looks at the data")

    monkeypatch.setattr(search, "new_trial_process", trained)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "space.yaml").write_text(SPACE)
    (tmp_path / "folder").mkdir()

    def line(*words):
        assert main(["run", "--space", "space.yaml", *words, *request.param]) == 2
        assert sorted(path.name for path in tmp_path.iterdir()) == ["folder", "space.yaml"], "nothing was written"
        printed = capsys.readouterr()
        assert printed.out == ""
        return printed.err

    return line


def test_a_cache_that_is_no_folder(refused, monkeypatch):
    monkeypatch.setenv("TMSEARCH_CACHE", "/dev/null")
    fix = "set TMSEARCH_CACHE to a folder that can be written"
    assert refused() == f"tmsearch: /dev/null: is not a folder, and log-mels are to be kept there; {fix}\n"


def test_checkpoints_at_a_url_that_fsspec_does_not_know(refused, monkeypatch):
    monkeypatch.setenv("TMSEARCH_CHECKPOINTS", "foo://bar")
    fix = "give a URL of another kind, such as s3://BUCKET/FOLDER, or unset the variable"
    expected = f"TMSEARCH_CHECKPOINTS: cannot store checkpoints there: Protocol not known: foo; {fix}"
    assert refused() == f"tmsearch: {expected}\n"


def test_a_storage_that_is_no_file(refused, tmp_path):
    folder = f"sqlite:///{tmp_path}/folder"
    assert refused("--storage", folder) == f"tmsearch: {folder}: is a folder; give a file\n"
    expected = "tmsearch: sqlite:////dev/null: is not a plain file; give another one\n"
    assert refused("--storage", "sqlite:////dev/null") == expected


def test_a_cache_that_is_only_read_does_where_log_mels_are_in_it(tmp_path, monkeypatch):
    cache = tmp_path / "cache"
    cache.mkdir()
    (cache / "mels-00.safetensors").write_bytes(b"")
    monkeypatch.setenv("TMSEARCH_CACHE", str(cache))
    monkeypatch.setattr(preconditions.os, "access", lambda *arguments: False)
    preconditions._check_cache()
    (cache / "mels-00.safetensors").unlink()
    with pytest.raises(preconditions.UserError, match=f"{cache}: cannot be written"):
        preconditions._check_cache()
    monkeypatch.setenv("TMSEARCH_CACHE", str(cache / "to" / "be" / "made"))
    with pytest.raises(preconditions.UserError, match=f"{cache}: cannot be written"):
        preconditions._check_cache()
