"""Elastic tickets: which block comes from which, and that masks and weights are copies."""

from __future__ import annotations

import pytest
from toys import HERE, same, tiny_recipe

from lth_zoo.engines.local import run
from lth_zoo.errors import BadInput
from lth_zoo.experiment import experiment
from lth_zoo.finders import IMP, Elastic
from lth_zoo.formats import load_masks
from lth_zoo.gc import collect_garbage
from lth_zoo.protocols import Signature, adapter_of
from lth_zoo.searches.elastic import maps, origins
from lth_zoo.session import MASKS, RESULT, read_state
from lth_zoo.store import Store

SHORT = {"iterations": 4, "batch_size": 16, "evaluate_every": 4}


def done(folder, finder, **values):
    """Run a recipe; return the store, its levels and all that was laid out."""
    values = {"model": "resnet-20x0.25", "sparsity": 0.5, "training": SHORT} | values
    store, laid = Store(folder), experiment(tiny_recipe(finder=finder, **values))
    assert run(laid.goals, store, HERE).failed == {}
    return store, laid.tickets()[0].level, laid


@pytest.mark.parametrize(
    ("lengths", "append", "interpolate"),
    [
        ((2, 3), [0, 1, 1], [0, 1, 1]),
        ((3, 5), [0, 1, 2, 1, 2], [0, 1, 1, 2, 2]),
        ((3, 7), [0, 1, 2, 1, 2, 1, 2], [0, 1, 1, 1, 2, 2, 2]),
        ((3, 4), [0, 1, 2, 1], [0, 1, 1, 2]),  # not equally: the early one has the rest
        ((5, 3), [0, 1, 2], [0, 1, 3]),
        ((5, 1), [0], [0]),
        ((1, 1), [0], [0]),
    ],
)
def test_maps_by_hand(lengths, append, interpolate):
    assert maps([lengths], "append") == [append]
    assert maps([lengths], "interpolate") == [interpolate]


def test_the_published_form_of_a_map():
    text = "0:0;1:1,2;2:3,4"
    assert maps([(3, 5)] * 2, "append", text) == [[0, 1, 1, 2, 2]] * 2
    assert maps([(3, 3), (1, 1)], "append", "0:0;1:2;2:1/0:0") == [[0, 2, 1], [0]]
    for wrong in ("0:0;1:1", "0:0;1:1,2;2:2,3,4", "0:0,1;1:2,3,4", "0:0;1:1,2;5:3,4", "0-0", "1:0"):
        with pytest.raises(BadInput, match="such as 0:0;1:1,2;2:3,4"):
            maps([(3, 5)], "append", wrong)
    with pytest.raises(BadInput, match="has 2 stages, the models have 3"):
        maps([(3, 5)] * 3, "append", f"{text}/{text}")


@pytest.mark.parametrize("order", ["append", "interpolate"])
def test_masks_and_weights_are_the_blocks_of_the_source(tmp_path, order):
    finder = Elastic(source="resnet-20x0.25", order=order, rate=0.5)
    store, level, _ = done(tmp_path, finder, model="resnet-32x0.25")
    job = level.masks
    assert level.start == job
    masks, state = load_masks(store.entry(job).read(MASKS)), read_state(store.entry(job)).state
    theirs = load_masks(store.entry(job.inputs["masks"]).read(MASKS))
    start = read_state(store.entry(job.inputs["source"])).state
    # Three stages of 5 from three of 3.
    stage = {"append": [0, 1, 2, 1, 2], "interpolate": [0, 1, 1, 2, 2]}[order]
    picks = [3 * s + i for s in range(3) for i in stage]
    for name, tensor in state.items():
        place, _, rest = name.removeprefix("blocks.").partition(".")
        source = f"blocks.{picks[int(place)]}.{rest}" if name.startswith("blocks.") else name
        assert tensor.equal(start[source]), name
        assert (name in masks) is (source in theirs)
        assert name not in masks or masks[name].equal(theirs[source]), name
    said = store.entry(job).json(RESULT)
    assert said["source"] == {"kept": theirs.kept, "prunable": theirs.size}
    assert theirs.kept == round(theirs.size / 2)
    assert (said["kept"], said["prunable"]) == (masks.kept, masks.size)
    assert masks.kept == sum(int(m.sum()) for m in masks.values())
    assert masks.density != theirs.density  # one threshold: copied blocks have their own share


def test_the_search_is_that_of_imp_on_the_source(tmp_path):
    finder = Elastic(source="resnet-14x0.25", rate=0.5, rewind="step=2")
    store, level, laid = done(tmp_path, finder)
    plain = IMP(rate=0.5, rewind="step=2")
    values = {"model": "resnet-14x0.25", "sparsity": 0.5, "training": SHORT}
    theirs = experiment(tiny_recipe(finder=plain, **values)).tickets()[0].level
    assert level.masks.inputs["masks"] == theirs.masks
    assert level.masks.inputs["source"] == theirs.start
    assert theirs.train not in laid.jobs
    assert [level.train.config[name] for name in ("begin", "end")] == [2, 4]
    assert read_state(store.entry(level.start)).iteration == 2


def test_vgg_goes_by_layers_and_a_ticket_can_be_squeezed():
    names = adapter_of("vgg-16").blocks(
        adapter_of("vgg-16").build("vgg-16x0.05", Signature((1, 16, 16), 10))
    )
    assert [len(stage) for stage in names] == [2, 2, 3, 3, 3]
    assert names[0] == [("features.0", "features.1"), ("features.3", "features.4")]
    config = {"source": "vgg-19x0.05", "order": "append", "map": ""}
    found = origins_on(config, "vgg-16x0.05")
    # The third stage begins at features 14 of both, the fourth at 24 and 27.
    assert found["features.20.weight"] == "features.20.weight"
    assert found["features.24.weight"] == "features.27.weight"
    assert found["features.25.running_var"] == "features.28.running_var"
    assert found["fc.bias"] == "fc.bias"


def origins_on(config, name):
    adapter, shapes = adapter_of(name), Signature((1, 16, 16), 10)
    source = adapter.build(config["source"], shapes)
    return origins({**config, "model": name}, adapter, adapter.build(name, shapes), source)


def test_controls_and_rubbish(tmp_path):
    controls = ("reinit", "shuffle", "shuffle-blocks", "inverted")
    store, level, laid = done(
        tmp_path, Elastic(source="resnet-14x0.25", rate=0.5), controls=controls
    )
    whole = load_masks(store.entry(level.masks).read(MASKS))
    other = {arm.name: arm.level for arm in laid.arms}
    shuffled = load_masks(store.entry(other["shuffle"].masks).read(MASKS))
    assert shuffled.counts == whole.counts
    inverted = load_masks(store.entry(other["inverted"].masks).read(MASKS))
    assert not same(dict(inverted), dict(whole))
    assert other["inverted"].start == level.start
    assert collect_garbage(store, dry_run=True).weights


@pytest.mark.parametrize(
    ("model", "finder", "message"),
    [
        ("resnet-20", {}, "finder.source is ''"),
        ("resnet-20", {"source": "resnet-20"}, "another depth than 'resnet-20'"),
        ("resnet-20", {"source": "resnet-15"}, "did you mean .*'resnet-14'"),
        ("resnet-14", {"source": "resnet-8"}, "choose a deeper source, such as resnet-14"),
        ("resnet-20", {"source": "resnet-14x0.5"}, "choose a source of the same widths"),
        ("resnet-20", {"source": "conv-2"}, "blocks of 'conv-2' are not known"),
        ("conv-2", {"source": "resnet-14"}, "fits those of the family cnn"),
        ("resnet-20", {"source": "resnet-14", "map": "0:0"}, "such as 0:0;1:1,2"),
        ("resnet-32", {"source": "resnet-20", "rates": ("blocks.14.conv1=0.1",)}, "unknown layer"),
    ],
)
def test_what_does_not_fit_is_refused_before_any_work(model, finder, message):
    with pytest.raises(BadInput, match=message):
        experiment(tiny_recipe(model=model, finder=Elastic(**finder)))
