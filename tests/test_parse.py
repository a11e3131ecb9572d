"""Recipe files and flags: one parser, the same recipe, the same key."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lth_zoo.errors import BadInput
from lth_zoo.finders import IMP, OneShot
from lth_zoo.parse import base_of, flags_of, from_mapping, load, one_line, take, to_yaml
from lth_zoo.recipe import Recipe, Training, shipped
from lth_zoo.runs import recipe_key

common = {
    "iterations": st.integers(1, 10**6),
    "learning_rate": st.floats(1e-12, 1e3),
    "clip_norm": st.none() | st.floats(1e-3, 10),
    "average": st.none() | st.floats(0.01, 0.99),
}
trainings = st.builds(
    Training, optimizer=st.sampled_from(["adam", "adafactor"]), **common
) | st.builds(
    Training,
    optimizer=st.just("sgd"),
    momentum=st.floats(0.01, 0.99),
    nesterov=st.booleans(),
    schedule=st.just("step"),
    milestones=st.lists(st.integers(0, 10**6), max_size=3).map(tuple),
    **common,
)
finders = st.builds(
    IMP, rate=st.floats(0.01, 0.99), levels=st.none() | st.integers(1, 9)
) | st.builds(OneShot, after=st.sampled_from(["training", "start"]))
recipes = st.builds(
    Recipe,
    finder=finders,
    training=trainings,
    sparsity=st.floats(0, 0.999),
    seeds=st.lists(st.integers(0, 2**40), min_size=1, max_size=4, unique=True).map(tuple),
    controls=st.lists(st.sampled_from(["reinit", "shuffle"]), unique=True).map(tuple),
    exclude=st.just(()) | st.just(("fc1", "fc3")),
    prune_last=st.booleans(),
    name=st.just("quick"),
    paper=st.sampled_from(["", "A: b, c # d", "line\nbreak", "- x", "'quoted\"", "日本", "null"]),
)


@given(recipes)
def test_a_recipe_survives_its_yaml(tmp_path_factory, recipe):
    path = tmp_path_factory.getbasetemp() / "quick.yaml"
    path.write_text(to_yaml(recipe))
    back = load(str(path))
    assert back == recipe
    assert recipe_key(back) == recipe_key(recipe)


@given(recipes)
def test_a_recipe_survives_plain_data(recipe):
    assert Recipe.from_dict(recipe.to_dict()) == recipe


@pytest.mark.parametrize("name", sorted(shipped()))
def test_a_shipped_recipe_can_be_copied(name, tmp_path):
    recipe = load(name)
    (tmp_path / "mine.yaml").write_text(to_yaml(recipe))
    copy = load(str(tmp_path / "mine.yaml"))
    assert copy == recipe
    assert recipe.paper
    assert recipe.expected


def test_a_file_may_rest_on_another(tmp_path):
    (tmp_path / "mine.yaml").write_text(
        "base: quick\nsparsity: 0.5\ntraining: {weight_decay: 0.3}\n"
    )
    mine, quick = load(str(tmp_path / "mine.yaml")), load("quick")
    training = replace(quick.training, weight_decay=0.3)
    assert mine == replace(quick, name="mine", sparsity=0.5, training=training)


def test_a_file_that_rests_on_itself_is_refused(tmp_path):
    a, b = tmp_path / "a.yaml", tmp_path / "b.yaml"
    a.write_text(f"base: {b}\n")
    b.write_text(f"base: {a}\n")
    with pytest.raises(BadInput, match=r"a.yaml is its own base: .*a.yaml -> .*b.yaml -> .*a.yaml"):
        load(str(a))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("sparsty: 0.5", "sparsity"),
        ("sparsity: high", "could not convert string to float: 'high'"),
        ("sparsity: [0.5, 0.6]", "0.6"),
        ("sparsity: {a: 1}", "sparsity.a"),
        ("training: 5", "training"),
        ("training: {iterations: 1.5}", "1.5"),
        ("training: {optimiser: sgd}", "--training.optimizer"),
        ("training: {optimizer: lion}", "lion"),
        ("finder: {name: snipp}", "unknown finder 'snipp'"),
        ("finder: snipp", "unknown finder 'snipp'"),
        ("finder: {name: one-shot, rate: 0.2}", "--finder.rate"),
        ("seeds: []", "give at least one"),
        ("controls: [reinti]", "did you mean 'reinit'"),
        ("- 1", "holds no mapping"),
        ("a: [", "not valid YAML"),
        ("", "holds no mapping"),
        ("base: no-such-recipe", "unknown recipe 'no-such-recipe'"),
    ],
)
def test_what_is_wrong_in_a_file_is_said(tmp_path, text, said):
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    with pytest.raises(BadInput) as caught:
        load(str(path))
    assert said in str(caught.value)


def test_a_file_of_bytes_is_no_yaml(tmp_path):
    (tmp_path / "x.yaml").write_bytes(b"\xff\xfe\x00\x81")
    with pytest.raises(BadInput, match="not valid YAML"):
        load(str(tmp_path / "x.yaml"))


def test_a_finder_may_be_given_by_name_alone():
    assert from_mapping({"finder": "one-shot"}, Recipe(), "here").finder == OneShot()


def test_changing_the_finder_keeps_the_rest():
    base, rest = base_of(["quick", "--finder", "one-shot", "--sparsity", "0.5"])
    assert base == replace(load("quick"), finder=OneShot())
    assert rest == ["--sparsity", "0.5"]
    same, _ = base_of(["quick", "--finder=imp"])
    assert same.finder == load("quick").finder  # its own hyper-parameters, not the defaults


def test_flags_of_plain_data():
    assert flags_of({"a_b": None, "c": {"d": False, "e": True}, "f": ()}) == [
        *("--a-b", "None"),
        *("--c.no-d", "--c.e"),
        "--f",
    ]


def test_take_leaves_the_rest_in_order():
    assert take(["a", "--x", "1", "b", "--x=2"], "--x") == ("2", ["a", "b"])
    assert take(["--y", "--x"], "--x") == (None, ["--y", "--x"])


def test_one_line_of_a_box():
    box = "╭─ Value error ─╮\n│ Error: 'abc'. │\n│ ───── │\n│ Argument helptext: │\n│ x │\n╰──╯"
    assert one_line(box) == "Error: 'abc'"


def test_the_key_is_of_what_changes_a_result():
    recipe = load("quick")
    assert recipe_key(replace(recipe, name="x", paper="y", expected="z")) == recipe_key(recipe)
    others = [
        replace(recipe, sparsity=0.5),
        replace(recipe, seeds=(7,)),
        replace(recipe, finder=OneShot()),
        replace(recipe, training=replace(recipe.training, threads=2)),
    ]
    assert len({recipe_key(r) for r in [recipe, *others]}) == 5
