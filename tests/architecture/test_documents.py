"""The documents say what the code says: folders, commands, knobs, links. Run as a program, it prints the folders."""

import ast
import re
import shlex
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
MOST_README_WORDS = 1300
DOCUMENTS = sorted(
    path
    for path in ROOT.rglob("*.md")
    if path.relative_to(ROOT).parts[0] in ("README.md", ".github", "search", "tmsearch", "spaces", "studies", "tests")
)


def name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def tree() -> str:
    """Every folder of the product with its number of modules and the first line of its docstring."""
    lines = []
    for package in ("search", "tmsearch"):
        for init in sorted((ROOT / package).rglob("__init__.py"), key=lambda path: path.parent.parts):
            job = (ast.get_docstring(ast.parse(init.read_text(encoding="utf-8"))) or "").splitlines()[0]
            modules = len([path for path in init.parent.glob("*.py") if path != init])
            lines.append(f"{name(init.parent) + '/':<29} {modules:>2}  {job}")
    return "\n".join(lines)


def block(document: str, marker: str) -> str:
    """The fenced block below the comment `<!-- marker -->` of a document."""
    text = (ROOT / document).read_text(encoding="utf-8")
    match = re.search(rf"<!-- {marker} -->\n+```\w*\n(.*?)\n```", text, re.DOTALL)
    assert match, f"{document}: no fenced block below <!-- {marker} -->"
    return match[1]


def commands() -> list[str]:
    """Every line of a shell block that begins with `tmsearch `, in whichever document."""
    lines = []
    for path in DOCUMENTS:
        for shell in re.findall(r"```sh\n(.*?)```", path.read_text(encoding="utf-8"), re.DOTALL):
            lines += [line.partition(" #")[0].strip() for line in shell.splitlines() if line.startswith("tmsearch ")]
    return sorted(set(lines))


def links(path: Path) -> list[str]:
    """Targets of a document's relative links and pictures."""
    targets = re.findall(r"\]\(([^)\s]+)\)", path.read_text(encoding="utf-8"))
    return [target.partition("#")[0] for target in targets if not re.match(r"\w+:|#", target)]


def test_the_tree_uses_the_folders_own_words():
    assert block(".github/ARCHITECTURE.md", "tree") == tree()


def test_the_readme_is_short():
    assert len((ROOT / "README.md").read_text(encoding="utf-8").split()) <= MOST_README_WORDS


@pytest.mark.parametrize("command", commands())
def test_every_command_of_the_documents_parses(command):
    from tmsearch.cli.parser import parse

    parse(shlex.split(command)[1:])


@pytest.mark.parametrize("path", DOCUMENTS, ids=name)
def test_every_link_leads_somewhere(path):
    missing = [target for target in links(path) if not (path.parent / target).exists()]
    assert missing == []


@pytest.mark.parametrize("path", DOCUMENTS, ids=name)
def test_every_file_that_is_named_exists(path):
    """Paths in backticks that begin with a folder of the repository."""
    text = path.read_text(encoding="utf-8")
    named = re.findall(r"`((?:search|tmsearch|tests|spaces|\.github|\.ci)/[\w./-]+)`", text)
    assert [file for file in named if not (ROOT / file).exists()] == []


@pytest.mark.parametrize("picture", [target for path in DOCUMENTS for target in links(path) if target.endswith(".png")])
def test_every_picture_is_one(picture):
    file = ROOT / "studies/pictures" / Path(picture).name
    assert file.read_bytes().startswith(b"\x89PNG")


def test_the_space_of_the_documents_loads(tmp_path):
    from search.space import search_space
    from tmsearch.cli.services.knobs import DATA, TRAIN

    text = re.search(r"```yaml\n(.*?)```", (ROOT / "spaces/README.md").read_text(encoding="utf-8"), re.DOTALL)[1]
    (tmp_path / "mine.yaml").write_text(text)
    assert search_space.load(tmp_path / "mine.yaml", train=TRAIN, data=DATA).study == yaml.safe_load(text)["study"]


def test_the_first_command_is_the_demo_and_the_second_the_tests():
    demo, tests = block("README.md", "demo"), block("README.md", "tests")
    assert "run --space spaces/demo.yaml" in demo
    assert "-m pytest" in tests
    assert all(".ci/constraints.txt" in command for command in (demo, tests))


@pytest.mark.parametrize("path", DOCUMENTS, ids=name)
def test_nothing_of_this_machine_is_committed(path):
    assert not re.search(r"(?<![\w.])/(home|root|tmp|work)/", path.read_text(encoding="utf-8"))


def test_the_tables_of_recorded_curves_that_commands_name_can_be_read():
    """With their wildcards, as a shell expands them: other files beside the tables would end the command."""
    from search.simulation import benchmark_table

    text = (ROOT / "search/README.md").read_text(encoding="utf-8")
    commands = re.findall(r"-m search\.simulation (.*)", text)
    patterns = {word for command in commands for word in command.split() if word.startswith("studies/replay/")}
    assert "studies/replay/*.jsonl" in patterns
    for pattern in sorted(patterns):
        files = sorted(ROOT.glob(pattern))
        assert files, pattern
        for file in files:
            assert benchmark_table.read(file).curves


def test_the_changelog_has_the_version():
    from tmsearch import __version__

    assert f"## {__version__}" in (ROOT / ".github/CHANGELOG.md").read_text(encoding="utf-8")


if __name__ == "__main__":
    print(tree())
