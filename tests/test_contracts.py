"""The contracts of adapters, tasks and finders, over everything that is registered."""

from __future__ import annotations

import copy
import math
from fractions import Fraction
from itertools import pairwise

import pytest
import tiny_gates
import torch
import toy_units
from contract_table import TABLE, row
from hf_models import save_tiny
from test_enforced import residue
from tiny_graphs import Anywhere
from torch import nn
from torch.nn import functional as F
from toys import HERE, pruned_are_zero, same, some_masks, tiny_recipe

from lth_zoo import registry
from lth_zoo.engines.local import run
from lth_zoo.errors import BadInput
from lth_zoo.experiment import experiment, lay_out
from lth_zoo.finders import IMP
from lth_zoo.formats import load_masks
from lth_zoo.given import judges_of
from lth_zoo.graph import View
from lth_zoo.graph_models import ANSWERS, graph_example
from lth_zoo.masks import Masks
from lth_zoo.protocols import SPLITS, Signature, Task, adapter_of, default_prunable
from lth_zoo.recipe import Recipe, finder_name
from lth_zoo.seeds import generator, seeded
from lth_zoo.session import MASKS, RESULT
from lth_zoo.store import Store
from lth_zoo.tasks import generation


@pytest.mark.parametrize("kind", registry.KINDS)
def test_every_registered_thing_has_a_row_and_every_row_a_thing(kind):
    for name in registry.names(kind):
        row(kind, name)
    assert set(TABLE[kind]) == set(registry.names(kind))


# -- adapters ---------------------------------------------------------------------------------

MODELS = [(a, m, s) for a in registry.names("adapters") for m, s in TABLE["adapters"].get(a, [])]


def built(name, signature, seed=0):
    adapter = adapter_of(name)
    with seeded(seed, "init"):
        return adapter, adapter.build(name, signature)


def examples(adapter, signature, size):
    """Random examples, as that family's models are fed."""
    rng, example = generator(0, "data"), adapter.example(signature)
    if signature.answer in ANSWERS:
        ring = graph_example(*signature.input, nodes=size)
        return ring | {"x": torch.randn(ring["x"].shape, generator=rng)}
    if isinstance(example, dict):
        shape = (size, *signature.input)
        return {"input_ids": torch.randint(4, 40, shape, generator=rng)}
    return torch.randn(size, *example.shape[1:], generator=rng)


def answers(model, inputs):
    answer = model(**inputs) if isinstance(inputs, dict) else model(inputs)
    return getattr(answer, "logits", answer)


def prunable_tensors(adapter, model):
    return {n: model.get_parameter(n) for n in adapter.prunable(model)}


@pytest.mark.parametrize(("family", "name", "signature"), MODELS)
def test_an_adapter_builds_the_same_model_from_the_same_seed(family, name, signature):
    adapter, model = built(name, signature)
    assert type(adapter) is registry.find("adapters", family)
    assert same(model.state_dict(), built(name, signature)[1].state_dict())
    other = prunable_tensors(*built(name, signature, seed=1))
    ours = prunable_tensors(adapter, model)
    assert ours.keys() == other.keys()
    assert not any(ours[n].equal(other[n]) for n in ours)
    twin = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in twin.parameters():
            parameter.add_(1)
    twin.load_state_dict(model.state_dict())
    assert same(twin.state_dict(), model.state_dict())
    answer = answers(model.eval(), examples(adapter, signature, 3))
    shape = (3, signature.output)
    if family == "generative":
        shape = (3,) if model.kind == "gan" else (3, *signature.input)
    assert answer.shape == shape
    assert answer.isfinite().all()


@pytest.mark.parametrize(("family", "name", "signature"), MODELS)
def test_what_an_adapter_says_of_its_model(family, name, signature):
    adapter, model = built(name, signature)
    clean, prunable = residue(model), adapter.prunable(model)
    depths = [p.depth for p in prunable.values()]
    assert depths == sorted(depths)
    assert set(depths) == set(range(depths[-1] + 1))
    for entry, what in prunable.items():
        weight = model.get_parameter(entry)
        place, _, tensor = entry.rpartition(".")
        assert place in (what.layer, f"{what.layer}.parametrizations.weight")
        assert model.get_submodule(place)._parameters[tensor] is weight
        assert weight.dim() >= 2
        assert what.kind == "parameter"
    head = adapter.head(model)
    assert bool(head) is (family != "generative")
    assert head < model.state_dict().keys()
    masks = Masks.ones(model, prunable)
    assert list(adapter.carry(masks, model)) == sorted(prunable.keys() - head)
    assert adapter.optional(model).keys().isdisjoint(prunable)
    assert {part.tensor for u in adapter.units(model) for part in u.parts} <= prunable.keys()
    macs = adapter.macs(model, adapter.example(signature))
    assert macs.keys() == prunable.keys()
    assert all(count >= model.get_parameter(n).numel() for n, count in macs.items())
    assert residue(model) == clean


def test_multiply_accumulates_by_hand():
    counts = {
        "lenet-300-100": [64 * 300, 300 * 100, 100 * 10],
        # 12x12 and 2x2 places after 5x5 kernels and one pooling; then 50 channels of 1 pixel.
        "lenet-5": [144 * 20 * 25, 4 * 50 * 20 * 25, 50 * 500, 500 * 10],
    }
    for name, expected in counts.items():
        signature = Signature((1, 8, 8) if "300" in name else (1, 16, 16), 10)
        adapter, model = built(name, signature)
        macs = adapter.macs(model, torch.zeros(1, *signature.input))
        assert list(macs.values()) == expected


@pytest.mark.parametrize(("family", "name", "signature"), MODELS)
def test_roles_are_those_of_the_family(family, name, signature):
    adapter, model = built(name, signature)
    roles = [p.role for p in adapter.prunable(model).values()]
    if family == "bert":
        assert set(roles) == {"attention", "ffn"}
        return
    if family == "generative":
        assert list(dict.fromkeys(roles)) == [name for name, _ in model.named_children()]
        return
    assert roles[-1] == "output"
    assert set(roles) <= {"conv", "linear", "output"}
    last = list(adapter.prunable(model).values())[-1].layer
    head = {n for n in adapter.prunable(model) if n in adapter.head(model)}
    assert head == {n for n, p in adapter.prunable(model).items() if p.role == "output"}
    if family != "gnn":  # whose last convolution may hold more than one layer
        assert {n.rpartition(".")[0] for n in adapter.head(model)} == {last}


@pytest.mark.parametrize(("family", "name", "signature"), MODELS)
def test_resetting_changes_every_prunable_tensor(family, name, signature):
    adapter, model = built(name, signature)
    resets = []
    for seed in (1, 1, 2):
        with seeded(seed, "init"):
            adapter.reset(model, name, signature)
        resets.append({n: t.detach().clone() for n, t in prunable_tensors(adapter, model).items()})
    resets.append(prunable_tensors(*built(name, signature)))
    first, again, *others = resets
    assert same(first, again), "the draw is a function of the seed"
    for other in others:
        assert not any(first[n].equal(other[n]) for n in first)
    assert default_prunable(model).keys() >= first.keys()


@pytest.mark.parametrize(("family", "name", "signature"), MODELS)
def test_a_masked_step_keeps_zeros(family, name, signature):
    adapter, model = built(name, signature)
    masks = some_masks(model)
    optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9, weight_decay=0.1)
    inputs = examples(adapter, signature, 8)
    start = copy.deepcopy(model)
    with masks.enforced(model.train(), optimizer):
        for _ in range(2):
            optimizer.zero_grad()
            answer, labels = answers(model, inputs), torch.arange(8) % signature.output
            images = family == "generative"
            loss = answer.square().mean() if images else F.cross_entropy(answer, labels)
            loss.backward()
            optimizer.step()
            assert pruned_are_zero(model, masks)
    for entry, mask in masks.items():
        assert (model.get_parameter(entry) != start.get_parameter(entry))[mask].any(), entry


# -- tasks ------------------------------------------------------------------------------------

#: Most tokens of a text; the tiny model has 48 positions.
LENGTH = 40
#: What makes images.
MAKER = "dcgan-8x0.05"


@pytest.fixture(scope="module", autouse=True)
def quick_judges():
    """Judges of generated images that are trained for moments only."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(generation, "SMALL", (10, 64, 32))
        judges_of.cache_clear()
        yield
    judges_of.cache_clear()


@pytest.fixture(scope="module")
def reader(tmp_path_factory):
    """The folder of a tiny model that reads text, and a cache of this module's own."""
    folder = tmp_path_factory.mktemp("reader")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LTH_ZOO_CACHE", str(folder / "cache"))
        yield str(save_tiny(folder / "model", answer="base"))


@pytest.fixture(scope="module", params=registry.names("tasks"))
def make(request, tmp_path_factory, reader):
    """A function that makes the task anew, over the same files, as a model reads it."""
    folder = tmp_path_factory.mktemp("task")
    try:
        data = request.getfixturevalue("data_dir")
    except pytest.skip.Exception:
        data = None

    def made():
        task = row("tasks", request.param)(data, folder)
        if reads_text(task):
            return task.prepared(reader, LENGTH)
        return task.prepared(MAKER if makes_images(task) else "lenet-5")

    return made


@pytest.fixture(scope="module")
def task(make):
    return make()


def reads_text(task):
    return hasattr(task, "bound")


def makes_images(task):
    return task.signature.answer == "images"


def halves(task, *asked):
    """A batch as inputs and labels; None where there are none."""
    batch = task.batch(*asked)
    return (batch, None) if makes_images(task) else batch


def learner(task, reader, seed=0):
    """A model for the task whose answers differ from example to example."""
    if makes_images(task):
        _, model = built(MAKER, task.signature, seed)
        with torch.no_grad():
            model.generator.project.weight.mul_(50)
        return model
    if not reads_text(task):
        inputs, classes = math.prod(task.signature.input), task.signature.output
        with seeded(seed, "init"):
            layers = nn.Flatten(), nn.Linear(inputs, classes)
        return nn.Sequential(*layers) if task.graph() is None else Anywhere(*layers)
    _, model = built(reader, task.signature, seed)
    rng = generator(seed, "init")
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=rng), alpha=0.5)
    return model


def numb(task, model):
    """Take from a model what makes its answers differ."""
    names = [n for n, _ in model.named_parameters() if n != "1.bias"]
    if reads_text(task):
        names = adapter_of("bert-mini").head(model)
    with torch.no_grad():
        for name, parameter in model.named_parameters(remove_duplicate=False):
            parameter.mul_(name not in names)


def parts_of(inputs):
    """What a batch feeds a model, as tensors with a row for each example."""
    if isinstance(inputs, View):
        return [inputs.x[inputs.rows.movedim(-1, 0)]]
    return list(inputs.values()) if isinstance(inputs, dict) else [inputs]


def check_inputs(task, inputs, size):
    if isinstance(inputs, View):
        assert inputs.edge_index.dtype == inputs.rows.dtype == torch.int64
        assert max(inputs.edge_index.max(), inputs.rows.max()) < len(inputs.x)
        assert inputs.rows.shape == ((2, 2 * size) if task.signature.answer == "links" else (size,))
        inputs, size = inputs.x, len(inputs.x)
    if not reads_text(task):
        assert inputs.shape == (size, *task.signature.input)
        assert inputs.dtype == torch.float32
        assert inputs.isfinite().all()
        return
    assert inputs["attention_mask"].any(1).all()
    assert inputs["input_ids"].shape[1] <= task.signature.input[0] == LENGTH
    for part in inputs.values():
        assert part.dtype == torch.int64
        assert part.shape == inputs["input_ids"].shape
        assert part.min() >= 0


def check_labels(task, labels, inputs):
    answer, size = task.signature.answer, len(labels)
    assert labels.isfinite().all()
    if answer == "value":
        assert labels.dtype == torch.float32
        values = task.signature.output
        assert labels.shape == ((size,) if values == 1 else (size, values))
        return
    assert labels.dtype == torch.int64
    width = parts_of(inputs)[0].shape[1]
    shapes = dict.fromkeys(ANSWERS, (size,))
    shapes |= {"classes": (size,), "span": (size, 2), "tokens": (size, width)}
    assert labels.shape == shapes[answer]
    if answer == "tokens":
        labels = labels[labels != -100]
    assert labels.min() >= 0
    assert labels.max() < (width if answer == "span" else task.signature.output)


def identities(task, split, inputs):
    """What makes two examples the same one: the texts, the pixels, the part of the graph."""
    if reads_text(task):
        return task.rows(split).keys()
    if task.signature.answer == "graphs":
        return inputs.columns.tolist()
    if isinstance(inputs, View):
        return [str(row) for row in inputs.rows.movedim(-1, 0)[: task.size(split)].tolist()]
    return [row.tobytes() for row in inputs.reshape(len(inputs), -1).numpy()]


def test_what_a_task_states(make, task):
    assert task.margin > 0
    assert isinstance(task.licence, str)
    assert isinstance(task.source, str)
    assert len(task.fingerprint()) == 64
    assert task.fingerprint() == task.fingerprint() == make().fingerprint()
    assert make().signature == task.signature


def test_a_task_is_read_as_a_model_reads_it(make, task, reader):
    if reads_text(task):
        shorter = make().prepared(reader, LENGTH - 8)
        assert shorter.signature.input == (LENGTH - 8,)
        assert shorter.fingerprint() != task.fingerprint()
        assert task.signature.input == (LENGTH,), "the task itself is as it was"
        with pytest.raises(BadInput, match="reads no text"):
            make().prepared("lenet-5")
    else:
        other = MAKER if makes_images(task) else reader
        assert make().prepared(other).fingerprint() == task.fingerprint()
        with pytest.raises(BadInput, match="reads no text"):
            make().prepared(reader, LENGTH)


def test_batches_fit_the_signature_and_splits_are_disjoint(task):
    seen = {}
    for split in SPLITS:
        size = task.size(split)
        assert size > 0
        inputs, labels = halves(task, split, torch.arange(size))
        check_inputs(task, inputs, size)
        if labels is not None:
            check_labels(task, labels, inputs)
        seen[split] = identities(task, split, inputs)
    # Real data holds some pictures twice; a split that overlaps holds hundreds.
    for a, b in (("train", "validation"), ("train", "test"), ("validation", "test")):
        common = len(set(seen[a]) & set(seen[b]))
        assert common <= 0.005 * min(len(seen[a]), len(seen[b])), f"{common} of {a} are in {b}"


def test_batches_depend_on_indices_and_generator_only(task):
    at = torch.tensor([3, 1, 2, 1])
    plain = task.batch("train", at)
    assert same(plain, task.batch("train", at))
    assert all(part[1].equal(part[3]) for part in parts_of(halves(task, "train", at)[0]))
    drawn = [task.batch("train", at.repeat(4), generator(s, "data")) for s in (0, 0, 1)]
    assert same(drawn[0], drawn[1])
    if task.labelled:
        assert same(drawn[0][1], drawn[2][1])
    assert same(drawn[0], drawn[2]) != getattr(task, "augment", not task.labelled)


def test_an_epoch_is_a_shuffle_in_whole_batches(task):
    size = task.size("train")
    step = min(7, size // 2)
    one, again, other = (task.epoch(step, generator(s, "data")) for s in (0, 0, 1))
    assert same(list(one), list(again))
    assert not same(list(one), list(other))
    places = torch.cat(list(one))
    assert places.unique().numel() == len(places) == size // step * step
    assert [len(b) for b in one] == [step] * (size // step)
    (whole,) = task.epoch(size + 1, generator(0, "data"))
    assert whole.sort().values.equal(torch.arange(size))


def test_evaluation_is_deterministic_and_leaves_no_trace(task, reader):
    model = learner(task, reader).train()
    before, random = copy.deepcopy(model.state_dict()), torch.get_rng_state()
    for split in SPLITS:
        metrics = task.evaluate(model, split)
        assert metrics == task.evaluate(model, split)
        assert {task.headline, "loss"} <= metrics.keys()
        assert all(map(math.isfinite, metrics.values()))
    assert model.training
    assert same(before, model.state_dict())
    assert torch.get_rng_state().equal(random)
    assert all(p.grad is None for p in model.parameters())
    assert task.flags(model) == ()
    numb(task, model)
    assert task.flags(model)[0] == ("collapsed" if makes_images(task) else "constant")
    assert all(map(math.isfinite, task.evaluate(model, "validation").values()))


def test_objectives_reach_every_parameter(task, reader):
    model = learner(task, reader)
    objectives = task.objectives(model)
    assert objectives
    assert len({o.name for o in objectives}) == len(objectives)
    at = torch.arange(min(16, task.size("train")))
    for objective in objectives:
        loss = objective.loss(model, task.batch("train", at), generator(0, "noise"))
        assert loss.dim() == 0
        loss.backward()
    # Of a text model's pooler and positions only what the task uses is reached.
    assert all(p.grad is not None and p.grad.any() for p in model.parameters())


def test_answers_are_what_a_loss_may_compare(task, reader):
    model, answer = learner(task, reader).eval(), task.signature.answer
    batch = task.batch("train", torch.arange(min(8, task.size("train"))))
    inputs, labels = (batch, None) if makes_images(task) else batch
    said = task.answers(model, batch, generator(0, "noise"))
    assert said.isfinite().all()
    assert said.requires_grad
    assert said.equal(task.answers(model, batch, generator(0, "noise")))
    if makes_images(task):
        assert said.shape == inputs.shape
        assert 0 <= said.min() < said.max() <= 1
        assert not said.equal(task.answers(model, batch, generator(1, "noise")))
        return
    (objective,) = task.objectives(model)
    loss = objective.loss(model, batch, generator(0, "noise"))
    if answer == "value":
        torch.testing.assert_close(loss, F.mse_loss(said, labels.reshape(said.shape)))
        return
    # Scores of classes: cross-entropy of the last dimension, over what has a label.
    logits = said.movedim(-1, 1)
    wanted = labels[labels != -100] if answer == "tokens" else labels
    torch.testing.assert_close(loss, F.cross_entropy(logits, wanted))


def test_a_task_without_answers_says_so():
    with pytest.raises(BadInput, match="'blobs' has no answers"):
        Task("blobs").answers(nn.Identity(), None)


# -- finders ----------------------------------------------------------------------------------

ROWS = [
    pytest.param(*case[:4], *(case[4:] or ({},)), id=f"{name}-{i}")
    for name in registry.names("finders")
    for i, case in enumerate(TABLE["finders"].get(name, []))
]


@pytest.mark.parametrize(("finder", "sparsity", "kept", "nested", "fields"), ROWS)
def test_a_finder_hits_every_density_exactly(finder, sparsity, kept, nested, fields, tmp_path):
    fields = {"training": {"iterations": 4}, "size": 2320, **fields}
    size = fields.pop("size")
    recipe = tiny_recipe(finder=finder, sparsity=sparsity, **fields)
    with toy_units.registered(), tiny_gates.registered():
        store, laid = Store(tmp_path), experiment(recipe)
        assert run(laid.goals, store, HERE).failed == {}
    levels = [arm.level for arm in laid.arms]
    assert [level.index for level in levels] == list(range(len(kept) + 1))
    assert levels[0].masks is None
    found = [load_masks(store.entry(level.masks).read(MASKS)) for level in levels[1:]]
    assert [masks.kept for masks in found] == kept
    assert all(masks.size == size for masks in found)
    for wide, narrow in pairwise(found):
        assert ((narrow & wide) == narrow) is nested
    for level in levels:
        result = store.entry(level.train).json(RESULT)
        assert set(result["metrics"]) == {"validation", "test"}
    for masks, level in zip(found, levels[1:], strict=True):
        counts = store.entry(level.train).json(RESULT)["masks"]
        assert {n: tuple(pair) for n, pair in counts.items()} == masks.counts


@pytest.mark.parametrize("finder", [case.values[0] for case in ROWS], ids=lambda f: repr(f)[:60])
def test_a_finder_is_plain_data_that_describes_itself(finder):
    recipe = tiny_recipe(finder=finder)
    assert Recipe.from_dict(recipe.to_dict()) == recipe
    assert hash(finder) == hash(Recipe.from_dict(recipe.to_dict()).finder)
    assert registry.find("finders", finder_name(finder)) is type(finder)
    assert set(finder.describes) == {"pretrain", "prune", "re-initialise", "train"}
    assert finder.paper


def test_schedules_are_exact_fractions():
    def densities(target, **settings):
        return [str(a["density"]) for a in IMP(**settings).schedule(Fraction(target))]

    assert densities("1/2") == ["4/5", "16/25", "64/125", "1/2"]
    assert densities("1/2", of="original") == ["4/5", "3/5", "1/2"]
    assert densities("64/125") == ["4/5", "16/25", "64/125"]
    assert densities("1/100", levels=2) == ["4/5", "16/25"]
    assert densities("1") == []
    assert densities("0", of="original", rate=0.5) == ["1/2", "0"]
    own = IMP(rate=0.5, rates=("fc3=0.25",)).schedule(Fraction(1, 5))
    assert [str(a["overrides"]["fc3"]) for a in own] == ["3/4", "9/16", "27/64"]
    assert [a.get("total") for a in own] == [None, None, Fraction(1, 5)]


def test_a_longer_study_continues_a_shorter_one():
    def keys(**values):
        finder = IMP(rate=0.5, **values.pop("finder", {}))
        return {job.key for job in lay_out(tiny_recipe(finder=finder, **values), "data").jobs}

    short = {"sparsity": 0.75, "controls": ("shuffle",)}
    whole = keys(sparsity=0.9375, controls=("shuffle", "reinit", "inverted"), seeds=(0, 1))
    assert keys(**short) < whole
    assert keys(sparsity=0.9375, finder={"levels": 3}) < whole
    # Another rate shares the initial state; another score the dense run as well.
    assert len(keys(**short) & keys(**short, training={"learning_rate": 0.1})) == 1
    assert len(keys(**short) & keys(**short, finder={"score": "random"})) == 2


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"finder": IMP(rates=("fc4=0.1",))}, "did you mean 'fc[123]'"),
        ({"finder": IMP(rates=("fc3=0",)), "sparsity": 0.99}, "out of reach"),
        ({"finder": IMP(rate=0.1, rates=("fc1=0.6",), scope="layer")}, "finder.rates remove more"),
        ({"exclude": ("fc1", "fc2", "fc3")}, "nothing is left to prune"),
        ({"exclude": ("fc9",)}, "did you mean"),
    ],
)
def test_layers_and_rates_that_cannot_be_are_refused_before_any_work(values, message):
    with pytest.raises(BadInput, match=message):
        experiment(tiny_recipe(**values))
