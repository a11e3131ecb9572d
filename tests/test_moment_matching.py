"""Strong tickets of generators: masks by moments, weights that stay, and arms without training."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from interrupted import check_ends_alike
from torch import nn
from torch.nn import functional as F
from toys import HERE, same, tiny_recipe

from lth_zoo.engines.local import run
from lth_zoo.errors import BadInput
from lth_zoo.experiment import Experiment, experiment
from lth_zoo.finders import MaskTraining, MomentMatching, Movement
from lth_zoo.formats import load_masks
from lth_zoo.given import judges_of
from lth_zoo.jobs import Job, Level
from lth_zoo.judging import judged
from lth_zoo.protocols import adapter_of, default_prunable, task_of
from lth_zoo.seeds import generator, seeded
from lth_zoo.session import IMAGES, LOG, MASKS, RESULT, read_state
from lth_zoo.store import Store
from lth_zoo.strong import settle, signed_constant
from lth_zoo.tasks import generation, generation_moments
from lth_zoo.tasks.generation_moments import Moments
from lth_zoo.tickets import ticket_of

GAN, VAE, DIGITS = "dcgan-16x0.1", "vae-8x0.05", "generation/digits"
RANDOM = ("shuffle", "random-layer", "random-global", "reinit")
STEPS = 120


@pytest.fixture(scope="module", autouse=True)
def quick_judges() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(generation, "SMALL", (60, 64, 32))
        judges_of.cache_clear()
        yield
    judges_of.cache_clear()


def recipe(model: str = GAN, **fields: Any) -> Any:
    training = {"iterations": 3, "batch_size": 32, "evaluate_every": 60, "learning_rate": 1e-3}
    plain = {"finder": MomentMatching(iterations=3), "sparsity": 0.7, "task": DIGITS}
    return tiny_recipe(**{"model": model, "training": training, **plain, **fields})


@dataclass
class Ran:
    """A finished study and its store."""

    laid: Experiment
    store: Store

    def level(self, name: str) -> Level:
        (arm,) = (a for a in self.laid.arms if a.name == name)
        return arm.level

    @property
    def search(self) -> Job:
        (job,) = (job for job in self.laid.jobs if job.kind == "learn")
        return job

    def result(self, job: Job) -> Any:
        return self.store.entry(job).json(RESULT)

    def state(self, job: Job) -> dict[str, torch.Tensor]:
        return read_state(self.store.entry(job)).state

    def masks(self, job: Job) -> Any:
        return load_masks(self.store.entry(job).read(MASKS))

    def curve(self, job: Job) -> list[dict[str, float]]:
        return [json.loads(line) for line in self.store.entry(job).read(LOG).splitlines()]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """One for all: the judges are trained once."""
    return Store(tmp_path_factory.mktemp("moments"))


def ran_in(store: Store, **fields: Any) -> Ran:
    laid = experiment(recipe(**fields))
    assert run(laid.goals, store, HERE).failed == {}
    return Ran(laid, store)


@pytest.fixture(scope="module")
def ran(store: Store) -> Ran:
    finder = MomentMatching(iterations=STEPS, learning_rate=0.03)
    return ran_in(store, finder=finder, controls=RANDOM)


# -- the search -----------------------------------------------------------------------------


def test_the_moments_come_nearer(ran: Ran) -> None:
    first, last = (row["train_loss"] for row in ran.curve(ran.search))
    assert last < 0.6 * first, "means over its two halves"


@pytest.mark.parametrize("weights", ["signed-constant", "init"])
def test_no_weight_moves_a_bit(weights: str, ran: Ran) -> None:
    finder = MomentMatching(iterations=4, weights=weights)  # type: ignore[arg-type]
    found = ran if weights == "signed-constant" else ran_in(ran.store, finder=finder)
    start, after = found.state(found.search.inputs["start"]), found.state(found.search)
    network = found_model(GAN)
    network.load_state_dict(start)
    if weights == "signed-constant":
        signed_constant(network, makers(network), 0.3)
    statistics = ("running_mean", "running_var", "num_batches_tracked")
    before = {n: t for n, t in network.state_dict().items() if not n.endswith(statistics)}
    assert same({n: after[n] for n in before}, before)
    theirs = {n: t for n, t in after.items() if n.startswith("discriminator.")}
    assert same(theirs, {n: start[n] for n in theirs}), "the other network is not touched at all"


def test_the_generator_alone_is_pruned_to_the_weight(ran: Ran) -> None:
    masks = ran.masks(ran.search)
    assert ran.laid.recipe.only == ("generator",)
    assert {n.partition(".")[0] for n in masks} == {"generator"}
    assert set(masks) == set(makers(found_model(GAN)))
    assert masks.kept == round(0.3 * masks.size)
    assert ran.result(ran.search)["relaxed"] == masks.kept


def test_it_is_nearer_than_random_masks_of_as_many_weights(ran: Ran) -> None:
    cfd = {
        arm.name: ran.result(arm.goal)["metrics"]["test"]["cfd"]
        for arm in ran.laid.arms
        if arm.name != "dense"
    }
    assert cfd.pop("ticket") < 0.6 * min(cfd.values())
    assert len(cfd) == len(RANDOM)


def test_interrupted_anywhere_it_ends_with_the_same_mask(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    search = ran_in(store, finder=MomentMatching(iterations=8)).search
    shutil.copytree(store.root, tmp_path / "store")  # with the judges, which take long to train
    other = Store(tmp_path / "store")
    shutil.rmtree(other.folder(search))
    check_ends_alike(search, store, other, {3, 6}, monkeypatch)


# -- arms without training --------------------------------------------------------------------


def test_ticket_and_controls_are_measured_as_they_are(ran: Ran) -> None:
    ticket = ran.level("ticket")
    assert ticket.start == ticket.masks == ran.search
    for name in ("ticket", *RANDOM):
        goal = ran.level(name).train
        assert goal is not None
        assert (goal.config["begin"], goal.config["end"]) == (0, 0)
        result = ran.result(goal)
        assert result["iterations"] == 0
        assert ran.curve(goal) == []
        assert sum(kept for kept, _ in result["masks"].values()) == ran.masks(ran.search).kept
        assert result["metrics"]["test"]["cfd"] > 0
        assert IMAGES in ran.store.entry(goal)
    trained = ran.result(ran.level("dense").train)
    assert trained["iterations"] == 3


def test_what_the_search_leaves_is_what_is_measured(ran: Ran) -> None:
    ticket = ran.level("ticket")
    at_the_end = ran.result(ran.search)["metrics"]["validation"]
    assert at_the_end == ran.result(ticket.train)["metrics"]["validation"]
    found, left = ran.state(ticket.train), ran.state(ran.search)
    masks = ran.masks(ran.search)
    kept = {n: t * masks[n] if n in masks else t for n, t in left.items()}
    generated = [n for n in found if n.startswith("generator.")]
    assert same({n: found[n] for n in generated}, {n: kept[n] for n in generated})


def test_the_tickets_own_folder_makes_the_measured_images(ran: Ran) -> None:
    from lth_zoo.api import judged as of_run

    outcome = run(ran.laid.goals, ran.store, HERE)
    finished = of_run("run", ran.laid, ran.store, outcome)
    (arm,) = ran.laid.tickets()
    network = ticket_of(arm, finished, ran.store).materialize().eval()
    codes = torch.randn(5, 16, generator=generator(3, "noise"))
    measured = found_model(GAN)
    measured.load_state_dict(ran.state(arm.goal))
    assert network.generator(codes).equal(measured.eval().generator(codes))


def test_statistics_of_each_arm_are_its_own(ran: Ran) -> None:
    task = judged(DIGITS).matched()
    for name in ("shuffle", "reinit"):
        level, model = ran.level(name), found_model(GAN)
        model.load_state_dict(ran.state(level.start))
        masks = ran.masks(level.masks)
        with masks.enforced(model):
            settle(model, task, 0, 50, 32)
            found = task.evaluate(model, "validation")
        assert found == ran.result(level.train)["metrics"]["validation"], name


def test_a_fresh_draw_has_constant_weights_too(ran: Ran) -> None:
    fresh, ours = ran.state(ran.level("reinit").start), ran.state(ran.search)
    for name in ran.masks(ran.search):
        assert fresh[name].abs().unique().numel() == 1
        assert torch.allclose(fresh[name].abs(), ours[name].abs())
        assert 0.3 < (fresh[name].sign() == ours[name].sign()).double().mean() < 0.7


# -- what it is made of -----------------------------------------------------------------------


def found_model(name: str) -> Any:
    with seeded(0, "init"):
        return adapter_of(name).build(name, task_of(DIGITS).signature)


def makers(network: nn.Module) -> dict[str, Any]:
    return {n: p for n, p in default_prunable(network).items() if n.startswith("generator.")}


@pytest.mark.parametrize(
    ("build", "summed", "inputs"),
    [
        (lambda: nn.Linear(600, 60), 600, (40, 600)),
        (lambda: nn.Conv2d(64, 32, 3), 64 * 9, (4, 64, 9, 9)),
        (lambda: nn.Conv2d(64, 32, 3, groups=2), 32 * 9, (4, 64, 9, 9)),
        (lambda: nn.ConvTranspose2d(64, 32, 4, 2, padding=1), 64 * 4, (4, 64, 9, 9)),
        (lambda: nn.ConvTranspose2d(64, 32, 4, 2, padding=1, groups=2), 32 * 4, (4, 64, 9, 9)),
    ],
)
def test_constant_weights_keep_signs_and_the_spread_of_what_they_sum(
    build: Any, summed: int, inputs: tuple[int, ...]
) -> None:
    with seeded(0, "init"):
        layer = build()
    model, drawn = nn.Sequential(layer), layer.weight.detach().clone()
    bias = nn.init.zeros_(layer.bias)
    signed_constant(model, default_prunable(model), 0.25)
    assert layer.weight.abs().unique().tolist() == pytest.approx([(2 / (summed * 0.25)) ** 0.5])
    assert ((layer.weight > 0) == (drawn >= 0)).all()
    assert not bias.any()
    rng = generator(1, "noise")
    with torch.no_grad():  # a random quarter of them has the spread that He's whole layer has
        layer.weight.mul_(torch.rand(layer.weight.shape, generator=rng) < 0.25)
        answer = layer(torch.randn(inputs, generator=rng))
    inside = answer[..., 2:-2, 2:-2] if answer.dim() == 4 else answer
    assert inside.square().mean().item() == pytest.approx(2, rel=0.15)


def test_settling_is_a_plain_mean_and_moves_no_weight() -> None:
    class Reads:
        def epoch(self, size: int, rng: Any) -> Any:
            return torch.randperm(12, generator=rng).split(size)

        def batch(self, split: str, at: torch.Tensor) -> torch.Tensor:
            return torch.arange(12.0)[at][:, None] ** 2

        def objectives(self, model: Any) -> Any:
            return [SimpleNamespace(loss=lambda m, batch, rng: m[0](batch).sum())]

    model = nn.Sequential(nn.Sequential(nn.Linear(1, 2), nn.BatchNorm1d(2)), nn.BatchNorm1d(3))
    ours, other = model[0][1], model[1]
    ours.running_mean.fill_(99.0)
    other.running_mean.fill_(7.0)
    before = {n: p.detach().clone() for n, p in model.named_parameters()}
    settle(model.eval(), Reads(), 0, 6, 4)  # type: ignore[arg-type] # two passes of three batches
    with torch.no_grad():
        whole = model[0][0](torch.arange(12.0)[:, None] ** 2).mean(0)
    assert torch.allclose(ours.running_mean, whole, rtol=1e-5)
    assert ours.num_batches_tracked == 6
    assert ours.momentum == 0.1
    assert other.running_mean.tolist() == [7.0] * 3, "what is not run keeps what it had"
    assert not model.training
    assert same(dict(model.named_parameters()), before)


@pytest.fixture(scope="module")
def task() -> Any:
    return judged(DIGITS).matched()


class Copies(nn.Module):
    """A generator that returns the logits of real images, and makes them darker or all alike."""

    kind, latent = "gan", 4

    def __init__(self, task: Any, dark: float = 1.0, alike: float = 0.0) -> None:
        super().__init__()
        self.loss, self.critic_steps = "hinge", 1
        self.images = task.batch("train", torch.arange(task.size("train")))
        self.dark, self.alike = dark, alike

    def generator(self, codes: torch.Tensor) -> torch.Tensor:
        at = (1e6 * codes[:, 0].abs()).long() % len(self.images)
        images = self.images[at].lerp(self.images.mean(0), self.alike) * self.dark
        return torch.logit(images, eps=1e-6)


def distance(task: Any, model: nn.Module, size: int = 16, times: int = 150) -> torch.Tensor:
    """The loss of many small batches: one value each."""
    loss, rng = task.objectives(model)[0].loss, generator(1, "noise")
    with torch.no_grad():
        return torch.stack([loss(model, torch.zeros(size, 1), rng) for _ in range(times)])


def test_real_images_are_at_no_distance_whatever_the_batch(task: Any) -> None:
    for size in (1, 6, 64):
        found = distance(task, Copies(task), size)
        error = found.std() / len(found) ** 0.5
        assert found.mean().abs() < 4 * error, "no bias: a square of both halves would have one"
        assert error < 0.35


def test_mean_and_variance_both_count(task: Any) -> None:
    dark, alike = Copies(task, dark=0.5), Copies(task, alike=0.9)
    assert distance(task, dark, 64, 20).mean() > 0.2
    assert distance(task, alike, 64, 20).mean() > 0.2


def test_every_layer_counts_by_the_moments_of_the_real_ones(task: Any) -> None:
    moments = Moments(task)
    layers = moments._real
    assert len(layers) == 4, "pixels, two batch norms and the features"
    pixels = task.batch("train", torch.arange(task.size("train"))).flatten(1)
    mean, variance, scale = layers[0]
    assert torch.allclose(mean * scale, pixels.mean(0), atol=1e-5)
    assert torch.allclose(variance * scale**2, pixels.var(0, unbiased=False), atol=1e-5)
    assert all(v.mean().item() == pytest.approx(1, rel=1e-4) for _, v, _ in layers)
    few = task.batch("train", torch.arange(7))
    judge = task.judge(generation_moments.MATCHED)
    raw = judge.network.eval().features(task.images.scaled(few))
    assert torch.allclose(moments._features(few)[-1], raw, atol=1e-5), "read as a judge reads them"


def test_the_judge_that_is_matched_is_not_the_one_that_measures(
    task: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []
    plain = type(task).judge
    monkeypatch.setattr(type(task), "judge", lambda s, n=0: asked.append(n) or plain(s, n))
    network = found_model(GAN)
    task.matched().objectives(network)[0].loss(network, torch.zeros(8, 1), generator(0, "noise"))
    task.evaluate(network, "validation")
    assert asked == [2, 0]
    judge = task.judge(2).network
    assert not any(p.requires_grad for p in judge.parameters())


def test_scarce_data_is_all_that_is_matched() -> None:
    from lth_zoo.altered import portion

    cut = portion(judged(DIGITS), 0.05).matched()
    few = cut.batch("train", torch.arange(cut.size("train"))).flatten(1)
    mean, _, scale = cut.moments._real[0]
    assert torch.allclose(mean * scale, few.mean(0), atol=1e-5)


# -- other models, other finders ----------------------------------------------------------------


def test_a_decoder_is_searched_by_codes_of_the_prior(store: Store) -> None:
    found = ran_in(store, model=VAE, finder=MomentMatching(iterations=2, scope="layer"))
    assert {n.partition(".")[0] for n in found.masks(found.search)} == {"decoder"}
    metrics = found.result(found.level("ticket").train)["metrics"]["test"]
    assert {"nelbo", "cfd"} <= metrics.keys()
    assert all(map(math.isfinite, metrics.values()))


@pytest.mark.parametrize(
    "finder", [MaskTraining(iterations=9, learning_rate=0.05), Movement(iterations=9)]
)
def test_other_learned_masks_reach_both_networks_of_a_vae(finder: Any, store: Store) -> None:
    found = ran_in(store, model=VAE, finder=finder)
    masks = found.masks(found.search)
    assert {n.partition(".")[0] for n in masks} == {"decoder", "encoder"}
    assert masks.kept == round(0.3 * masks.size)
    first = ran_in(store, model=VAE, finder=replace(finder, iterations=1))
    theirs = first.masks(first.search)
    assert all(not mask.equal(theirs[name]) for name, mask in masks.items())


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"model": "ae-conv-8x0.1"}, "a plain autoencoder draws no images"),
        ({"model": "lenet-300-100", "task": "digits"}, "a decoder or a generator, and 'lenet"),
        ({"only": ("discriminator",)}, "prunes the generator alone: leave it out, or give gen"),
        ({"only": ("generator.stages",)}, "only is .*'generator.stages'.*prunes the generator"),
        ({"controls": ("inverted",)}, "this finder has none"),
        ({"controls": ("random-labels",)}, "permutes labels"),
        ({"finder": MaskTraining()}, "one loss over the whole model; .* has discriminator, gen"),
    ],
)
def test_what_cannot_be_searched_is_said_before_any_work(fields: Any, words: str) -> None:
    with pytest.raises(BadInput, match=words):
        experiment(recipe(**fields))


@pytest.mark.parametrize("bad", [{"learning_rate": 0}, {"iterations": 0}])
def test_settings_that_cannot_be(bad: Any) -> None:
    with pytest.raises(BadInput, match=next(iter(bad))):
        MomentMatching(**bad)


def test_only_may_name_the_generator_and_no_sparsity_is_dense_alone() -> None:
    named, plain = experiment(recipe(only=("generator",))), experiment(recipe())
    assert named.jobs == plain.jobs
    assert [arm.name for arm in experiment(recipe(sparsity=0.0)).arms] == ["dense"]


def test_a_task_without_moments_says_so() -> None:
    with pytest.raises(BadInput, match="'digits' has no moments"):
        task_of("digits").matched()


def test_the_masked_model_answers_any_question() -> None:
    from lth_zoo.allocate import Pool
    from lth_zoo.relax import ScoredModel, TopK

    inner = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2))
    names = ("0.weight", "1.weight")
    scores = {n: torch.rand(inner.get_parameter(n).shape) for n in names}
    model, x = ScoredModel(inner, scores, TopK([Pool(names, 9)])), torch.randn(3, 4)
    plain = {n: p.detach().clone() for n, p in inner.named_parameters()}
    assert model.through(lambda m: m(x)).equal(model(x))
    half = model.through(lambda m: m[0](x))
    assert half.equal(F.linear(x, plain["0.weight"] * model.masks()["0.weight"], plain["0.bias"]))
    half.sum().backward()
    assert model.by_name()["0.weight"].grad is not None
    assert same(dict(inner.named_parameters()), plain), "and is as it was"
