"""Finds the best fine-tuning recipe of Whisper for throat-microphone speech."""

from __future__ import annotations

import importlib
from types import ModuleType
from typing import TYPE_CHECKING, Any

__version__ = "0.2.0"

if TYPE_CHECKING:
    from tmsearch.api.confirmation import Confirmation as Confirmation
    from tmsearch.api.datasets import Data as Data
    from tmsearch.api.datasets import data as data
    from tmsearch.api.errors import InputError as InputError
    from tmsearch.api.errors import RunFailedError as RunFailedError
    from tmsearch.api.errors import StudyInterrupted as StudyInterrupted
    from tmsearch.api.errors import TmsearchError as TmsearchError
    from tmsearch.api.plan import Plan as Plan
    from tmsearch.api.records import Rung as Rung
    from tmsearch.api.records import Trial as Trial
    from tmsearch.api.search import open_study as open_study
    from tmsearch.api.search import plan as plan
    from tmsearch.api.search import search as search
    from tmsearch.api.search import studies as studies
    from tmsearch.api.status import Status as Status
    from tmsearch.api.study import Study as Study
    from tmsearch.api.training import Model as Model
    from tmsearch.api.training import train as train

# Public name -> its module. Each is imported at its first use: `import tmsearch` alone takes next to nothing.
_PUBLIC = {
    "Confirmation": "confirmation",
    "Data": "datasets",
    "InputError": "errors",
    "Model": "training",
    "Plan": "plan",
    "Rung": "records",
    "RunFailedError": "errors",
    "Status": "status",
    "Study": "study",
    "StudyInterrupted": "errors",
    "TmsearchError": "errors",
    "Trial": "records",
    "data": "datasets",
    "open_study": "search",
    "plan": "search",
    "search": "search",
    "studies": "search",
    "train": "training",
}

__all__ = ["__version__", *_PUBLIC]


class CallablePackage(ModuleType):
    """A package that bears the name of a public function, and is that function, too."""

    def __call__(self, *arguments: Any, **settings: Any) -> Any:
        name = self.__name__.rpartition(".")[2]
        module = importlib.import_module(f"{__name__}.api.{_PUBLIC[name]}")
        return getattr(module, name)(*arguments, **settings)


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.api.{_PUBLIC[name]}"), name)
    return globals().setdefault(name, value)


def __dir__() -> list[str]:
    return sorted({*globals(), *_PUBLIC})
