"""The packages that tmsearch uses: as installed, as required, and as tested."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import metadata, resources

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

_EXTRA = re.compile(r"\bextra\s*==")


@dataclass(frozen=True)
class PackageVersion:
    """One package. `required`: the versions that tmsearch works with; None where it can do without the package."""

    name: str
    tested: str
    installed: str | None
    required: Requirement | None

    @property
    def problem(self) -> str | None:
        """Why tmsearch does not work with it; None where it does, or where it can do without."""
        if self.required is None:
            return None
        if self.installed is None:
            return f"{self.required} is not installed"
        if not self.required.specifier.contains(self.installed, prereleases=True):
            return f"{self.name} {self.installed} is not {self.required.specifier}"
        return None

    @property
    def is_as_tested(self) -> bool:
        """Whether it is the tested version, whatever device it was built for."""
        return self.installed is not None and _public(self.installed) == _public(self.tested)


def tested_versions() -> dict[str, str]:
    """The version that the tests pass with, by package; tests/tmsearch/machine/test_versions.py keeps it up to date."""
    text = resources.files("tmsearch.machine").joinpath("tested_versions.txt").read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    return dict(line.split("==") for line in lines)


def packages() -> list[PackageVersion]:
    """Every package that tmsearch needs, and those of its extras that are installed."""
    required = _requirements()
    versions = []
    for name, tested in tested_versions().items():
        installed = _installed(name)
        requirement = required.get(canonicalize_name(name))
        if installed is not None or requirement is not None:
            versions.append(PackageVersion(name, tested, installed, requirement))
    return versions


def _requirements() -> Mapping[str, Requirement]:
    """What the installed tmsearch requires without extras; nothing where it runs without being installed."""
    try:
        lines = metadata.requires("tmsearch") or []
    except metadata.PackageNotFoundError:
        lines = []
    requirements = [Requirement(line) for line in lines if not _EXTRA.search(line)]
    return {canonicalize_name(requirement.name): requirement for requirement in requirements}


def _installed(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _public(version: str) -> str:
    """Without the local part, such as torch's `+cpu`."""
    try:
        return Version(version).public
    except InvalidVersion:
        return version
