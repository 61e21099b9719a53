"""optuna-dashboard on the storage, as an application that any WSGI server runs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from search.storage.database import Storage


def application(storage: Storage) -> Callable[..., Any]:
    """The dashboard of every study in the storage, with the artifact store that they share."""
    from optuna.artifacts import FileSystemArtifactStore
    from optuna_dashboard import wsgi

    artifacts = storage.folder / "artifacts"
    artifacts.mkdir(parents=True, exist_ok=True)
    app: Callable[..., Any] = wsgi(storage.optuna, artifact_store=FileSystemArtifactStore(str(artifacts)))
    return app
