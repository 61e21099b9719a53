"""The README says what the code says: its tree, its commands, its knobs. Run as a program, it prints the tree."""

import ast
import re
import shlex
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8") if (ROOT / "README.md").exists() else ""
OTHERS = {
    "spaces/": "demo, tiny, base, small, large_v3 and sizes, with the source of each range",
    "studies/": "what searches leave (ignored), and a log of what was measured",
    "tests/": "mirrors search/ and tmsearch/; offline, on a CPU",
}


def tree() -> str:
    """Every module with the first line of its docstring."""
    lines = []
    for package in ("search", "tmsearch"):
        for path in sorted((ROOT / package).rglob("*.py"), key=lambda path: (path.parent.parts, path.name)):
            name = path.relative_to(ROOT).as_posix()
            job = (ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or "").splitlines()[0]
            name = name.removesuffix("__init__.py")
            lines.append(f"{name:<31} {job}".rstrip())
    lines += [f"{name:<31} {job}" for name, job in OTHERS.items()]
    return "\n".join(lines)


def block(marker: str) -> str:
    found = re.search(rf"<!-- {marker} -->\n+```\w*\n(.*?)\n```", README, re.DOTALL)
    assert found, f"README.md: no fenced block below <!-- {marker} -->"
    return found[1]


def test_the_tree_uses_the_files_own_words():
    assert block("tree") == tree()


def commands() -> list[str]:
    lines = [line for part in re.findall(r"```sh\n(.*?)```", README, re.DOTALL) for line in part.splitlines()]
    return [line.partition("#")[0].strip() for line in lines if line.startswith("tmsearch ")]


@pytest.mark.parametrize("command", commands())
def test_every_command_of_the_readme_parses(command):
    from tmsearch.cli.parser import parse

    parse(shlex.split(command)[1:])


@pytest.mark.parametrize("picture", re.findall(r"!\[[^\]]+\]\((\S+)\)", README))
def test_every_picture_is_there(picture):
    assert (ROOT / picture).read_bytes().startswith(b"\x89PNG")


def test_the_space_of_the_readme_loads(tmp_path):
    from search.space import search_space
    from tmsearch.cli.services.knobs import DATA, TRAIN

    text = re.search(r"```yaml\n(.*?)```", README, re.DOTALL)[1]
    (tmp_path / "mine.yaml").write_text(text)
    assert search_space.load(tmp_path / "mine.yaml", train=TRAIN, data=DATA).study == yaml.safe_load(text)["study"]


def test_the_first_command_is_the_demo_and_the_second_the_tests():
    assert "run --space spaces/demo.yaml" in block("demo")
    assert "-m pytest" in block("tests")
    for command in (block("demo"), block("tests")):
        assert ".ci/constraints.txt" in command


def test_nothing_of_this_machine_is_committed():
    assert not re.search(r"/(home|root|tmp)/", README)


if __name__ == "__main__":
    print(tree())
