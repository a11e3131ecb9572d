"""The battery of sanity checks: its looks by hand, its new controls, a ticket put through it."""

from __future__ import annotations

from dataclasses import replace

import pytest
import tiny
import torch
import toys
from toys import HERE, Blobs, mlp, tiny_recipe

import lth_zoo as lz
from lth_zoo.altered import with_random_pixels
from lth_zoo.effective import Wire, effective, wiring
from lth_zoo.engines.local import run
from lth_zoo.errors import BadInput
from lth_zoo.experiment import experiment
from lth_zoo.finders import IMP, Movement, OneShot, SynFlow
from lth_zoo.jobs import DENSE, TICKET, graph, iterations_of
from lth_zoo.masks import Masks
from lth_zoo.probes.soundness import Zeros, moved, revived
from lth_zoo.protocols import Signature, adapter_of, task_of
from lth_zoo.recipe import Training
from lth_zoo.rewind import Snapshot, clone_state
from lth_zoo.session import RESULT
from lth_zoo.store import Store
from lth_zoo.studies.base import Measured
from lth_zoo.studies.battery import PROFILES, Battery
from lth_zoo.studies.battery_words import _integrity, _paths
from lth_zoo.studies.run import run_study
from lth_zoo.train import Loop


def bits(*rows: str) -> torch.Tensor:
    return torch.tensor([[c == "1" for c in row] for row in rows])


# -- effective sparsity -------------------------------------------------------------------------

#: Three inputs, two hidden layers of three units, two outputs.
WIRES = {"a": Wire(0, None, 0), "b": Wire(1, 0, 0), "c": Wire(None, 1, 0)}


def test_dead_paths_are_found_by_hand():
    masks = Masks(
        {
            "a": bits("110", "000", "001"),  # unit 1 of the first layer is fed by nothing
            "b": bits("110", "010", "001"),  # unit 1 of the second reads it alone: dead
            "c": bits("110", "000"),  # unit 2 of the second is not heard
        }
    )
    left = effective(masks, WIRES, [3, 3])
    assert left["a"].equal(bits("110", "000", "000")), "what only feeds unit 2 goes"
    assert left["b"].equal(bits("100", "000", "000"))
    assert left["c"].equal(bits("100", "000"))
    assert (masks.kept, left.kept) == (9, 4)


def test_a_cut_network_has_no_effective_weight_and_a_whole_one_all():
    ones = Masks({n: torch.ones(3 if n != "c" else 2, 3) > 0 for n in WIRES})
    assert effective(ones, WIRES, [3, 3]) == ones
    cut = ones.joined(Masks({"b": torch.zeros(3, 3) > 0}))
    assert effective(cut, WIRES, [3, 3]).kept == 0


def test_maps_are_as_wide_as_their_places_and_transposed_layers_turned():
    # A convolution 1 -> 2 channels of 1 x 1, then a linear layer that reads 2 x 2 places of each.
    wires = {"conv": Wire(0, None, 0), "fc": Wire(None, 0, 0)}
    masks = Masks({"conv": bits("1", "0").reshape(2, 1, 1, 1), "fc": bits("10001111")})
    left = effective(masks, wires, [2])
    assert left["fc"].equal(bits("10000000")), "channel 1 is fed by nothing"
    turned = {"conv": Wire(0, None, 1), "fc": Wire(None, 0, 0)}
    masks = Masks({"conv": bits("10").reshape(1, 2, 1, 1), "fc": bits("10001111")})
    assert effective(masks, turned, [2])["fc"].equal(left["fc"])


@pytest.mark.parametrize(
    "name", ["lenet-300-100x0.1", "lenet-5x0.2", "conv-2x0.1", "vgg-11x0.05", "resnet-20x0.25"]
)
def test_image_families_are_wired_whole(name):
    family = adapter_of(name)
    model = family.build(name, Signature((3, 16, 16), 10))
    layers = family.permutations(model)
    wires = wiring(model, layers)
    assert wires is not None
    assert wires.keys() >= family.prunable(model).keys()
    masks = Masks.ones(model, wires)
    assert effective(masks, wires, [units.count for units in layers]) == masks


def test_a_shortcut_carries_what_its_block_does_not():
    family = adapter_of("resnet-20x0.25")
    model = family.build("resnet-20x0.25", Signature((3, 8, 8), 10))
    layers = family.permutations(model)
    wires, counts = wiring(model, layers), [units.count for units in layers]
    masks = Masks.ones(model, wires)
    name = "blocks.1.conv2.weight"
    blocked = masks.joined(Masks({name: masks[name] & False}))
    left = effective(blocked, wires, counts)
    assert not left["blocks.1.conv1.weight"].any(), "nobody hears it"
    rest = masks.without(name, "blocks.1.conv1.weight")
    assert left.without(name, "blocks.1.conv1.weight") == rest


def test_models_whose_wires_are_not_known_are_said_so(tmp_path):
    recipe = tiny_recipe(model="toys:custom", finder=OneShot(), sparsity=0.5)
    study, store = Battery(), Store(tmp_path)
    probes = [p for p in study.lay_out(recipe, None) if p.of["arm"] == "paths"]
    assert run([p.job for p in probes], store, HERE).failed == {}
    measured = [Measured(p.of, store.entry(p.job).json(RESULT), store.entry(p.job)) for p in probes]
    row = _paths(measured)
    assert row["result"] == "not applicable"
    assert "does not say how" in row["says"]
    assert wiring(toys.custom(Signature((1, 8, 8), 10)), []) is None


# -- integrity ----------------------------------------------------------------------------------


def test_planted_violations_are_counted():
    masks = Masks({"w": bits("101", "010")})
    start = {"w": torch.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])}
    trained = {"w": torch.tensor([[7.0, 0.0, 0.5], [0.0, -1.0, 0.0]])}
    assert revived(trained, masks) == 0
    trained["w"][0, 1], trained["w"][1, 2] = 1e-30, -2.0
    assert revived(trained, masks) == 2
    assert moved(start, start, masks) == 0
    off = {"w": start["w"].clone()}
    off["w"][0, 1] = 9.0  # pruned: not looked at
    assert moved(off, start, masks) == 0
    off["w"][0, 2] = torch.nextafter(off["w"][0, 2], torch.tensor(9.0))
    assert moved(off, start, masks) == 1, "one bit is enough"


def test_a_violation_fails_the_check_and_says_which():
    sound = {"revived": 0, "revived_on_the_way": 0, "moved": 0, "miscounted": 0, "steps": 5}
    told = [_integrity([Measured({}, {**sound, key: 3}, None)]) for key in list(sound)[:4]]
    assert {row["result"] for row in told} == {"fails"}
    assert len({row["says"] for row in told}) == 4
    assert _integrity([Measured({}, sound, None)])["result"] == "passes"


def test_a_step_that_revives_a_weight_is_seen():
    model = mlp()
    masks = toys.some_masks(model)

    class Vandal(Zeros):
        def on_step(self, loop):
            if loop.iteration == 2:
                name = next(iter(self.masks))
                with torch.no_grad():
                    loop.model.get_parameter(name)[~self.masks[name]] = 1.0
            super().on_step(loop)
            loop.set_masks(self.masks)

    def look(kind):
        start = clone_state(model)
        watch = kind(masks, start)
        training = Training(iterations=4, batch_size=10, optimizer="sgd", momentum=0.9)
        Loop(
            mlp(), Blobs(), training, seed=0, masks=masks, start=Snapshot(start), hooks=[watch]
        ).run()
        return watch

    sound, broken = look(Zeros), look(Vandal)
    assert (sound.revived, sound.moved, sound.steps) == (0, 0, 4)
    first = next(iter(masks.values()))
    assert broken.revived == int((~first).sum())


def test_wrong_counts_are_found(tmp_path):
    recipe = tiny_recipe(finder=OneShot(), sparsity=0.5)
    store = Store(tmp_path)
    (probe,) = (p for p in Battery().lay_out(recipe, None) if p.of["arm"] == "integrity")
    told = {**probe.job.config["promise"], "density": "1/4"}
    lie = replace(probe.job, config={**probe.job.config, "promise": told})
    assert run([probe.job, lie], store, HERE).failed == {}
    found, wrong = (store.entry(job).json(RESULT) for job in (probe.job, lie))
    assert (found["miscounted"], found["revived"], found["moved"], found["steps"]) == (0, 0, 0, 5)
    assert wrong["miscounted"] == found["size"] // 4


# -- new controls -------------------------------------------------------------------------------


def test_pixels_are_shuffled_in_training_alone_and_by_image():
    plain = task_of("digits")
    other = with_random_pixels(plain, 0)
    some = torch.arange(8)
    (ours, labels), (theirs, same) = (t.batch("train", some) for t in (plain, other))
    assert labels.equal(same)
    assert not ours.equal(theirs)
    for a, b in zip(ours.flatten(1), theirs.flatten(1), strict=True):
        assert a.sort().values.equal(b.sort().values), "the pixels are the image's own"
    for split in ("validation", "test"):
        assert plain.batch(split, some)[0].equal(other.batch(split, some)[0])
    again, seed = with_random_pixels(plain, 0), with_random_pixels(plain, 1)
    assert again.batch("train", some.flip(0))[0].flip(0).equal(theirs), "an image keeps its order"
    assert not seed.batch("train", some)[0].equal(theirs)


def test_images_have_orders_of_their_own_and_channels_stay_together():
    class Maps(Blobs):
        @property
        def signature(self):
            return Signature((2, 4, 4), 3)

    task = Maps()
    ramp = torch.arange(16.0).reshape(4, 4)
    task.points = torch.stack([ramp, ramp + 100])[None].repeat(60, 1, 1, 1)
    found, _ = with_random_pixels(task, 0).batch("train", torch.arange(40))
    assert (found[:, 1] - found[:, 0]).eq(100).all()
    assert len({tuple(x.flatten().tolist()) for x in found[:, 0]}) == 40


def test_random_pixels_and_half_the_data_are_of_the_search_alone():
    names = ("random-pixels", "half-data")
    recipe = tiny_recipe(finder=IMP(rate=0.5), sparsity=0.75, controls=names)
    laid = experiment(recipe)
    by = {(arm.name, arm.level.index): arm.level for arm in laid.arms}
    told = {"random-pixels": ("labels", "random-pixels"), "half-data": ("data_fraction", 0.5)}
    for index in (1, 2):
        for name, (key, value) in told.items():
            control = by[name, index]
            assert control.start == by[TICKET, index].start
            assert key not in control.train.config
            searched = [j for j in graph([control.masks]) if j.kind == "train"]
            assert {job.config[key] for job in searched} == {value}


def test_equal_compute_trains_dense_as_long_as_search_and_ticket():
    training = {"schedule": "step", "milestones": (6,), "warmup": 2}
    recipe = tiny_recipe(
        finder=IMP(rate=0.5), sparsity=0.75, controls=("equal-compute",), training=training
    )
    arms = {(a.name, a.level.index): a for a in experiment(recipe).arms}
    # Dense and two levels of 12 iterations, with the ticket's own training.
    for index, total in ((1, 24), (2, 36)):
        level = arms["equal-compute", index].level
        assert level.masks is None
        assert iterations_of(level.train) == total
        assert sum(map(iterations_of, graph([arms[TICKET, index].goal]))) == total
        config = level.train.config["training"]
        assert (config["iterations"], config["warmup"]) == (total, 2 * total // 12)
        assert config["milestones"] == (total // 2,)
        assert level.start == arms[DENSE, 0].level.start


@pytest.mark.parametrize("name", ["random-pixels", "half-data"])
def test_new_controls_refuse_what_has_no_such_data(name):
    recipe = tiny_recipe(
        model="gcn-8", task="karate", finder=OneShot(), sparsity=0.5, controls=(name,)
    )
    with pytest.raises(BadInput, match="karate"):
        experiment(recipe)


# -- a ticket put through it --------------------------------------------------------------------

SHORT = {"model": "lenet-300-100x0.1", "training": Training(iterations=12, batch_size=32)}


@pytest.fixture(scope="module")
def ticket(tmp_path_factory):
    store = tmp_path_factory.mktemp("battery")
    finder = IMP(rate=0.5, rewind="step=4")
    return lz.find(**SHORT, finder=finder, sparsity=0.75, store=store), store


def test_the_full_battery_of_a_ticket(ticket):
    found = lz.battery(ticket[0], "full", seeds=(0, 1), store=ticket[1])
    assert found.outcome.failed == {}
    rows = {row["check"]: row for row in found.answer.data["checks"]}
    rewinds = {"rewind init", "rewind 2%", "rewind 50%"}
    assert rows.keys() == {"mask integrity", "effective sparsity", *PROFILES["full"], *rewinds}
    assert rows["mask integrity"]["result"] == "passes", rows["mask integrity"]
    assert rows["effective sparsity"]["result"] == "told"
    assert not [n for n, row in rows.items() if row["says"].startswith("did not end")]
    assert all(0 <= row["p"] <= 1 for row in rows.values() if "p" in row)
    measured = [row for row in rows.values() if "values" in row]
    assert {tuple(row["values"]) for row in measured} == {(0, 1)}
    ticket_values = found.answer.data["ticket"]
    for row in measured:
        gap = sum(ticket_values[s] - row["values"][s] for s in (0, 1)) / 2
        assert row["difference"] == pytest.approx(gap)
    again = lz.battery(ticket[0], "full", seeds=(0, 1), store=ticket[1])
    assert (again.outcome.done, again.id) == (0, found.id)


def test_what_does_not_suit_a_finder_is_not_applicable(tmp_path):
    recipe = tiny_recipe(model="toys:custom", finder=Movement(), sparsity=0.5, seeds=(0, 1))
    study = Battery(profile="full")
    probes = study.lay_out(recipe, None)
    left = probes[0].of["left"]
    assert "finder has none" in left["inverted"]
    assert "comes in one width" in left["equal-size"]
    assert {p.of["arm"] for p in probes} & left.keys() == set()


def test_a_rule_that_is_the_tickets_own_is_not_swept():
    recipe = tiny_recipe(finder=IMP(rate=0.5, rewind="50%"), sparsity=0.5)
    probes = Battery(profile="full").lay_out(recipe, None)
    assert probes[0].of["left"] == {"rewind 50%": "it is the ticket's own rule"}
    learning = replace(recipe, finder=IMP(rate=0.5, rewind="learning-rate"))
    left = Battery(profile="full").lay_out(learning, None)[0].of["left"]
    assert {"rewind init", "rewind 2%", "rewind 50%"} <= left.keys()


def test_the_ticket_itself_destroys_nothing(tmp_path):
    recipe = tiny_recipe(finder=OneShot(), sparsity=0.5, seeds=(0, 1))
    found = run_study(Battery(), recipe, Store(tmp_path), HERE)
    rows = {row["check"]: row for row in found.answer.data["checks"]}
    assert "it is the ticket itself" in rows["one-shot-trained"]["says"]
    assert "it is `one-shot`" in rows["one-shot-init"]["says"]


def test_a_search_that_reads_no_data_is_told_so(tmp_path):
    recipe = tiny_recipe(finder=SynFlow(), sparsity=0.5, seeds=(0, 1))
    found = run_study(Battery(profile="full", rewinds=()), recipe, Store(tmp_path), HERE)
    rows = {row["check"]: row for row in found.answer.data["checks"]}
    assert {rows[n]["result"] for n in ("random-labels", "random-pixels")} == {"fails"}
    assert "same to the bit" in rows["random-labels"]["says"]
    assert rows["half-data"]["result"] == "told"


def test_verify_prints_a_table_and_json(ticket, tmp_path, capsys):
    folder = tmp_path / "ticket"
    ticket[0].save_pretrained(folder)
    flags = ("--seeds", 0, 1, "--workers", 0, "--store", ticket[1])
    said = tiny.cli(capsys, "verify", folder, "--battery", "quick", *flags)
    assert said.code == 0, said.err
    assert "Sanity checks" in said.out
    assert "page: " in said.out
    (answer,) = tiny.cli(capsys, "verify", folder, "--battery", "quick", *flags, "--json").json
    assert answer["battery"] == "quick"
    assert len(answer["answer"]["checks"]) == 2 + len(PROFILES["quick"])
    assert answer["failed"] == []


def test_bad_words_are_said_before_anything_runs(ticket, tmp_path, capsys):
    folder = tmp_path / "ticket"
    ticket[0].save_pretrained(folder)
    wrong = tiny.cli(capsys, "verify", folder, "--battery", "quik", "--store", tmp_path / "s")
    assert wrong.code == 2
    assert "unknown battery 'quik'; did you mean 'quick'?" in wrong.err
    assert not (tmp_path / "s").exists()
    both = tiny.cli(capsys, "verify", folder, "--battery", "quick", "--controls", "reinit")
    assert "has its own controls" in both.err
    none = tiny.cli(capsys, "verify", "--battery", "quick")
    assert "name at least one ticket" in none.err
    bare = replace(ticket[0], meta={k: v for k, v in ticket[0].meta.items() if k != "recipe"})
    with pytest.raises(BadInput, match="carries no recipe"):
        lz.battery(bare, store=tmp_path / "s")
    with pytest.raises(BadInput, match=r"study\.steps is -1"):
        Battery(steps=-1)
