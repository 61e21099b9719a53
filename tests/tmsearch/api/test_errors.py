"""A person's mistakes from Python: typed, in the one line that the command prints, and nothing is written."""

import pathlib
import subprocess
import sys

import numpy
import pytest
import yaml

import tmsearch
from search.errors import RunError, UserError
from tests.support import in_process
from tests.support.command import SPACE, environment
from tmsearch.api import errors
from tmsearch.cli.services import knobs


def mapping(**changes):
    return {**yaml.safe_load(SPACE), **changes}


@pytest.fixture(autouse=True)
def in_folder(tmp_path):
    with in_process.in_folder(tmp_path):
        yield
    assert {path.name for path in tmp_path.iterdir()} <= {"space.yaml"}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"trials": 0}, "trials: '0' is not a whole number from 1"),
        ({"timeout": "soon"}, "timeout: 'soon' is not a duration; write 90s"),
        ({"workers": 1.5}, r"workers: '1\.5' is not a whole number"),
        ({"on": "kubernetes"}, "on: 'kubernetes' is none; give local, slurm, ray"),
        ({"progress": "loud"}, "progress: 'loud' is none; give \"auto\""),
        ({"storage": "mysql://host/db"}, "mysql is not supported"),
        ({"study_name": "../up"}, "cannot name a study"),
        ({"set": ["train.learning_rte=1"]}, "learning_rate"),
        ({"track": ["clearml"]}, "clearml"),
        ({"engine": {"partition": "gpu"}}, "^engine: belongs to on slurm or on ray; leave it out$"),
        ({"on": "slurm"}, "^on slurm: workers of several machines need storage postgresql://"),
        ({"price": "free"}, r"price: 'free' is not a price in dollars; write 2\.50"),
        ({"price": -1.0}, r"price: '-1\.0' is not a price in dollars"),
        ({"notify": "mailto:me"}, r"^notify: neither an http\(s\) URL nor `desktop`$"),
    ],
)
def test_a_wrong_argument_is_an_input_error(settings, message):
    with pytest.raises(tmsearch.InputError, match=message) as error:
        tmsearch.search(mapping(), **settings)
    assert isinstance(error.value, UserError)
    assert isinstance(error.value, tmsearch.TmsearchError)
    assert "\n" not in str(error.value)
    assert error.value._render_traceback_() == [f"InputError: {error.value}"]


def test_a_wrong_variable_is_an_input_error_each_time(monkeypatch):
    monkeypatch.setenv("TMSEARCH_NOTIFY", "mailto:me")
    for _ in range(2):
        with pytest.raises(tmsearch.InputError, match=r"^TMSEARCH_NOTIFY: neither an http\(s\) URL nor `desktop`$"):
            tmsearch.search(mapping())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"gpu": "large"}, "gpu: 'large' is not a memory size in GB"),
        ({"price": "free"}, "price: 'free' is not a price in dollars"),
        ({"trials": 0}, "trials: '0' is not a whole number from 1"),
        ({"set": ["train.learning_rte=1"]}, "learning_rate"),
        ({"study_name": "../up"}, "cannot name a study"),
    ],
)
def test_a_wrong_argument_of_a_plan_is_an_input_error(settings, message):
    with pytest.raises(tmsearch.InputError, match=message):
        tmsearch.plan(mapping(), **settings)


@pytest.mark.parametrize(
    ("printed", "raised"),
    [
        (
            "--set data.languge: no such key; did you mean language?",
            "data.languge: no such key; did you mean language?",
        ),
        ("killed: --trial 99: there are 0 to 3", "killed: trial 99: there are 0 to 3"),
        ("-o /proc/x.html: cannot be written", "/proc/x.html: cannot be written"),
        ("--storage-timeout 1: a fine-tune of well-kept clips", "storage_timeout 1: a fine-tune of well-kept clips"),
        ("s: no result; `tmsearch run --trials 8` and -o", "s: no result; `tmsearch run --trials 8` and -o"),
    ],
)
def test_options_of_the_command_line_are_arguments_in_python(printed, raised):
    with pytest.raises(tmsearch.InputError) as error, errors.one_line_errors():
        raise UserError(printed)
    assert str(error.value) == raised


def test_a_wrong_space_is_told_as_the_command_tells_it(tmp_path):
    wrong = mapping(search={"learning_rate": {"low": 1e-2, "high": 1e-4, "log": True}})
    pathlib.Path("space.yaml").write_text(yaml.safe_dump(wrong))
    printed = in_process.tmsearch(tmp_path, "run", "--space", "space.yaml").stderr
    with pytest.raises(tmsearch.InputError) as of_file:
        tmsearch.search(pathlib.Path("space.yaml"))
    assert printed == f"tmsearch: {of_file.value}\n"
    with pytest.raises(tmsearch.InputError) as of_mapping:
        tmsearch.search(wrong)
    assert str(of_mapping.value) == str(of_file.value).replace("space.yaml", "space")
    with pytest.raises(tmsearch.InputError, match=r"space: search\.model: set where a plain value belongs"):
        tmsearch.search(mapping(search={"model": {"demo/nano"}}))


def test_a_mapping_may_hold_what_python_has_and_is_left_as_it_is():
    given = mapping(
        data={"dataset": pathlib.PurePosixPath("demo"), "validation": numpy.int64(8), "test": 6},
        budget={"max_steps": 6, "rungs": (2, 4, 6)},
        search={"learning_rate": {"low": numpy.float64(1e-4), "high": 1e-2, "log": numpy.bool_(True)}},
    )
    space = knobs.space_of(given, ("train.batch_size=2",), None)
    assert given["train"]["batch_size"] == 4
    assert space.train["batch_size"] == 2
    assert space.budget.rungs == (2, 4, 6)
    assert type(space.search["learning_rate"].low) is float
    del given["study"]
    assert knobs.space_of(given, (), "named").study == "named"


def test_data_that_is_not_there_and_settings_that_are_none_are_input_errors():
    with pytest.raises(tmsearch.InputError, match="nowhere"):
        tmsearch.data("nowhere/")
    with pytest.raises(tmsearch.InputError, match="chanel"):
        tmsearch.data("demo", chanel=1)


@pytest.mark.parametrize(
    ("raised", "expected"),
    [
        (UserError("a://u:secret@h: wrong"), errors.InputError),
        (tmsearch.errors.InputError("wrong"), errors.InputError),
        (RunError("failed"), errors.RunFailedError),
        (OSError(28, "No space left on device"), errors.RunFailedError),
        (OSError(2, "No such file"), FileNotFoundError),
        (KeyError("bug"), KeyError),
    ],
    ids=["mistake", "application", "run", "disk", "other", "bug"],
)
def test_every_error_is_one_of_the_public_ones_or_itself(raised, expected):
    with pytest.raises(expected) as error, errors.one_line_errors():
        raise raised
    assert type(error.value) is expected
    assert "secret" not in str(error.value)


LIGHT = """
import sys
import tmsearch
heavy = {"torch", "optuna", "numpy", "sqlalchemy", "rich", "plotly", "yaml", "search"} & set(sys.modules)
assert not heavy, heavy
assert {"search", "train", "data", "Study"} <= set(dir(tmsearch))
assert callable(tmsearch.search), callable(tmsearch.data)
import tmsearch.data.columns
assert callable(tmsearch.data)
assert not {"torch", "transformers"} & set(sys.modules)
tmsearch.open_study("no", storage="sqlite:///no.db")
"""


def test_the_import_is_light_and_no_look_imports_torch(tmp_path):
    done = subprocess.run([sys.executable, "-"], input=LIGHT, capture_output=True, text=True, env=environment(tmp_path))
    assert done.returncode == 1
    assert "InputError: no: no such study" in done.stderr.splitlines()[-1]
