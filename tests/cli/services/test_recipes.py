"""What `export -o` may overwrite."""

import json

import pytest

from search.errors import UserError
from tmsearch.cli.services import recipes
from tmsearch.config import DataConfig, TrainConfig
from tmsearch.export import trainer_arguments
from tmsearch.recipe import Recipe, recipe_text

RECIPE = recipe_text(Recipe(DataConfig("demo"), TrainConfig(), 2))
SPACE = (
    "study: mine\ndata: {dataset: demo}\ntrain: {batch_size: 8}\nsearch: {learning_rate: {low: 1.0e-6, high: 1.0e-5}}\n"
)


@pytest.mark.parametrize(
    "before",
    [None, "", RECIPE, RECIPE.replace("batch_size: 16", "batch_size: 8"), trainer_arguments.text(TrainConfig())],
    ids=["nothing", "empty", "recipe", "changed by hand", "the trainer's"],
)
def test_an_earlier_export_is_overwritten(tmp_path, before):
    file = tmp_path / "best.yaml"
    if before is not None:
        file.write_text(before)
    recipes.write_recipe(file, RECIPE)
    assert file.read_text() == RECIPE


@pytest.mark.parametrize(
    "before",
    [SPACE, "- a list\n", "{", "learning_rate: 1.0e-5\n", json.dumps({"mine": 1}), b"\xff\xfe\x00binary"],
    ids=["space", "list", "no YAML", "settings", "JSON", "binary"],
)
def test_anything_else_is_left_alone(tmp_path, before):
    file = tmp_path / "fast.yaml"
    content = before if isinstance(before, bytes) else before.encode()
    file.write_bytes(content)
    with pytest.raises(UserError, match=r"fast.yaml: exists and is not what `export` wrote; name another file, or"):
        recipes.write_recipe(file, RECIPE)
    assert file.read_bytes() == content
