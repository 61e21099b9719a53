"""How the code reads, in numbers: `python tests/architecture/texture.py [FOLDER ...]`, the whole product by default.

Counts modules a folder, imports that stay inside one folder, pronouns as names, comprehensions and conditional
expressions per 1,000 lines, long functions, line lengths, and the README's words.
"""

from __future__ import annotations

import ast
import statistics
import sys
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGES = ("search", "tmsearch")
# Names that hide what they hold.
PRONOUNS = {
    *("one", "found", "said", "told", "heard", "mine", "theirs", "ours", "kept", "left", "known"),
    *("there", "whole", "place", "seen", "rest", "asked", "made", "each", "settle"),
}
COMPREHENSIONS = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)


def names(tree: ast.AST) -> list[str]:
    """Every name that a module binds or reads, attributes and parameters among them."""
    bound: list[str] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Name):
            bound.append(node.id)
        elif isinstance(node, ast.Attribute):
            bound.append(node.attr)
        elif isinstance(node, ast.arg | ast.keyword):
            bound.append(node.arg or "**")
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            bound.append(node.name)
    return bound


def imported_modules(tree: ast.AST) -> list[str]:
    """Modules of the house that a module imports, as dotted names."""
    modules = []
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in PACKAGES:
            for alias in node.names:
                path = ROOT / (node.module or "").replace(".", "/")
                is_module = (path / f"{alias.name}.py").exists() or (path / alias.name / "__init__.py").exists()
                modules.append(f"{node.module}.{alias.name}" if is_module else str(node.module))
    return sorted(set(modules))


def folder_of(module: str) -> str:
    """The folder that a dotted module lies in."""
    path = ROOT / module.replace(".", "/")
    return module if path.is_dir() else module.rpartition(".")[0]


def main(folders: list[str]) -> None:
    """Print the figures of the given folders, or of both packages."""
    roots = [ROOT / folder for folder in folders] or [ROOT / package for package in PACKAGES]
    files = sorted({path for root in roots for path in root.rglob("*.py")})
    counts: Counter[str] = Counter()
    pronouns: Counter[str] = Counter()
    lengths: list[int] = []
    for path in files:
        text = path.read_text(encoding="utf-8")
        tree = ast.parse(text)
        lines = text.splitlines()
        lengths += [len(line) for line in lines if line.strip()]
        counts["lines"] += len(lines)
        pronouns.update(name for name in names(tree) if name.strip("_") in PRONOUNS)
        here = path.parent.relative_to(ROOT).as_posix().replace("/", ".")
        for module in imported_modules(tree):
            counts["imports"] += 1
            counts["imports inside"] += folder_of(module) == here
        for node in ast.walk(tree):
            counts["comprehensions"] += isinstance(node, COMPREHENSIONS)
            counts["conditional expressions"] += isinstance(node, ast.IfExp)
            if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Tuple):
                counts["tuple assignments"] += isinstance(node.value, ast.Tuple)
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                counts["functions"] += 1
                counts["functions over 40 lines"] += (node.end_lineno or 0) - node.lineno + 1 > 40
    modules = Counter(path.parent for path in files if path.name != "__init__.py")
    per_thousand = 1000 / max(counts["lines"], 1)
    print(f"modules: {sum(modules.values())} in {len(modules)} folders")
    print(f"modules a folder: median {statistics.median(modules.values()):g}, most {max(modules.values())}")
    print(f"imports of the house: {counts['imports']}, {counts['imports inside']} of them inside one folder")
    print(f"lines: {counts['lines']}, 90th percentile of their length {statistics.quantiles(lengths, n=10)[-1]:.0f}")
    most_common = dict(pronouns.most_common(6))
    print(f"pronouns as names: {sum(pronouns.values()) * per_thousand:.1f} per 1,000 lines; {most_common}")
    for kind in ("comprehensions", "conditional expressions", "tuple assignments"):
        print(f"{kind}: {counts[kind] * per_thousand:.1f} per 1,000 lines")
    print(f"functions over 40 lines: {counts['functions over 40 lines']} of {counts['functions']}")
    if not folders:
        print(f"README.md: {len((ROOT / 'README.md').read_text(encoding='utf-8').split())} words")


if __name__ == "__main__":
    main(sys.argv[1:])
