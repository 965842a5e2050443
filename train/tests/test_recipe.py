"""Recipes: those that ship, and what is wrong with others, named by file and field."""

import datetime
import functools

import pytest
import yaml

from model.common.errors import UserError
from train import recipe
from train.nets.nin import NIN
from train.recipe import RECIPES, RecipeError, Training, read

BASE = {
    "name": "small",
    "data": {"npz": "x.npz"},
    "net": "train.nets.nin:NIN",
    "full_precision": {"epochs": 2},
    "quantize": {"method": "reconstruct"},
    "fine_tune": {"epochs": [[16, 1], [32, 2]], "teachers": ["full_precision"], "labels": 0.5},
}


def written(tmp_path, text):
    path = tmp_path / "r.yaml"
    path.write_text(text if isinstance(text, str) else yaml.safe_dump(text))
    return str(path)


@pytest.mark.parametrize("name", sorted(p.stem for p in RECIPES.glob("*.yaml")))
def test_shipped_recipes(name):
    found = read(name)
    assert "{" not in found.name and isinstance(found.fine_tune, Training)
    if name != "digits":
        assert read(name, "cifar100").name == found.name.replace("cifar10", "cifar100")
        assert read(name, "cifar100", 7).seed == 7


def test_paper_and_full_share_what_comes_before_quantization():
    full, paper = read("full"), read("paper")
    for name in ("data", "net", "arguments", "seed", "flip", "shift", "teacher", "full_precision"):
        assert getattr(full, name) == getattr(paper, name), name
    assert paper.quantize.method == "paper" and paper.quantize.clip == 0.2
    assert full.fine_tune.epochs == paper.fine_tune.epochs


def test_epochs_and_sizes(tmp_path):
    found = read(written(tmp_path, BASE))
    assert found.full_precision.sizes == [None, None]
    assert found.fine_tune.sizes == [16, 32, 32]
    assert found.data.validation == 5000 and found.seed == 0 and found.teacher is None


class Maker:
    def __call__(self, classes):
        return NIN(classes)


maker, narrow = Maker(), functools.partial(NIN, width=0.5)


def test_a_card_names_networks_of_any_kind(tmp_path):
    shown = {"NIN": "train.nets.nin:NIN", "maker": "Maker object", "narrow": "width=0.5"}
    for name, expected in shown.items():
        recipe = written(tmp_path, {**BASE, "net": f"train.tests.test_recipe:{name}"})
        assert expected in read(recipe).settings["net"]


def changed(where, value):
    table = yaml.safe_load(yaml.safe_dump(BASE))
    *path, last = where.split(".")
    inner = table
    for key in path:
        inner = inner[key]
    if value is None:
        del inner[last]
    else:
        inner[last] = value
    return table


WRONG = {
    "name": ("name", "../x", "name: "),
    "a name that is a number": ("name", 3, "name: "),
    "no network": ("net", None, "net: Field required"),
    "an unknown module": ("net", "nowhere:X", "net: "),
    "an unknown network": ("net", "train.nets.nin:X", "net: "),
    "a network without a name": ("net", ":X", "net: "),
    "a module for a network": ("net", "train.nets.nin", "net: Input should be callable"),
    "a module that fails": ("net", "broken_network:X", "SyntaxError"),
    "an unknown class of data": ("data", {"class": "train.sources:X"}, "data.class: "),
    "a network of a stage": ("fine_tune.net", "train.nets.nin:NIN", "fine_tune.net: Unexpected"),
    "a teacher without a network": ("teacher", {"epochs": 1}, "teacher.net: Field required"),
    "an unknown field": ("rate", 1, "rate: "),
    "an unknown field of a stage": ("fine_tune.speed", 1, "fine_tune.speed: "),
    "a rate of 0": ("fine_tune.rate", 0, "fine_tune.rate: "),
    "a rate of nan": ("fine_tune.rate", float("nan"), "fine_tune.rate: "),
    "a rate of a text": ("fine_tune.rate", "fast", "fine_tune.rate: "),
    "a true batch": ("fine_tune.batch", True, "fine_tune.batch: "),
    "half an image": ("fine_tune.batch", 2.5, "fine_tune.batch: "),
    "half an epoch": ("fine_tune.epochs", 2.5, "fine_tune.epochs"),
    "no epoch": ("fine_tune.epochs", 0, "fine_tune.epochs"),
    "epochs without sizes": ("fine_tune.epochs", [16, 32], "fine_tune.epochs"),
    "a negative size": ("fine_tune.epochs", [[-1, 3]], "fine_tune.epochs"),
    "an unknown teacher": ("fine_tune.teachers", ["me"], "fine_tune.teachers"),
    "no such teacher": ("fine_tune.teachers", ["teacher"], "there is no teacher before"),
    "nobody to learn from": ("fine_tune.teachers", [], "labels 0.5 needs teachers"),
    "itself": ("full_precision.teachers", ["full_precision"], "full_precision.teachers"),
    "a stage of a number": ("fine_tune", 3, "fine_tune: "),
    "a teacher that teaches itself": (
        "teacher",
        {"net": "train.nets.nin:NIN", "teachers": ["teacher"]},
        "teacher.teachers: there is no teacher before",
    ),
    "an unknown method": ("quantize.method", "magic", "quantize.method: "),
    "nine bits": ("quantize.bits", 9, "quantize.bits: "),
    "no data": ("data", {}, "data: "),
    "two kinds of data": ("data.cifar", "cifar10", "data: "),
    "an unknown field of the data": ("data.size", 3, "data.size: "),
    "no validation": ("data.validation", 0, "data.validation: "),
    "a negative seed": ("seed", -1, "seed: "),
    "a date": ("seed", datetime.date(2022, 1, 1), "not JSON serializable"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_wrong_is_named(case, tmp_path, monkeypatch):
    where, value, culprit = WRONG[case]
    (tmp_path / "broken_network.py").write_text("class X(:\n")
    monkeypatch.syspath_prepend(tmp_path)
    path = written(tmp_path, changed(where, value))
    with pytest.raises(RecipeError) as caught:
        read(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ") and culprit in message and len(message) < 800


@pytest.mark.parametrize(
    "text", ["", "3", "[1]", "a: [", "a: !!python/object:x.Y {}", "\x00", "&a [*a"]
)
def test_files_that_are_no_recipe(text, tmp_path):
    path = written(tmp_path, text)
    with pytest.raises(UserError, match=path):
        read(path)


def test_unknown_recipes_and_data_sets(tmp_path):
    with pytest.raises(RecipeError, match="recipe fulll: there are digits, full, paper, resnet20"):
        read("fulll")
    with pytest.raises(FileNotFoundError):
        read(str(tmp_path / "none.yaml"))
    with pytest.raises(RecipeError, match="has its own data, DATASET=cifar10 does not fit"):
        read("digits", "cifar10")
    (tmp_path / "big.yaml").write_bytes(b" " * (recipe.MAX_BYTES + 1))
    with pytest.raises(UserError, match="more than"):
        read(str(tmp_path / "big.yaml"))
