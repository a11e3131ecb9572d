"""The task `generation`: losses against closed forms, two networks in the one loop, looks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.distributions import Normal, kl_divergence

from lth_zoo.errors import BadInput, Diverged
from lth_zoo.given import judges_of
from lth_zoo.judging import judged
from lth_zoo.masks import Masks
from lth_zoo.protocols import adapter_of, task_of
from lth_zoo.recipe import Training
from lth_zoo.rewind import Snapshot
from lth_zoo.seeds import generator, seeded
from lth_zoo.tasks import generation, generation_looks
from lth_zoo.tasks import generation_losses as losses
from lth_zoo.train import Loop

DCGAN, VAE, SNGAN = "dcgan-8x0.05", "vae-8x0.05", "sngan-8x0.02"
TRAINING = Training(
    iterations=6, batch_size=8, learning_rate=1e-3, betas=(0.0, 0.9), average=0.9, evaluate_every=6
)


@pytest.fixture(scope="module")
def task() -> Any:
    """Generation of digits, judged by three nets of a few steps."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(generation, "SMALL", (40, 64, 32))
        judges_of.cache_clear()
        yield judged("generation/digits")
    judges_of.cache_clear()


def model_of(name: str, seed: int = 0) -> Any:
    with seeded(seed, "init"):
        return adapter_of(name).build(name, task_of("generation/digits").signature)


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


class Blind(generation.Generation):
    """Looks are left out: they take longer than these trainings."""

    def evaluate(self, model: nn.Module, split: Any) -> dict[str, float]:
        return {"cfd": 0.0, "loss": 0.0}


# -- losses --------------------------------------------------------------------------------------


def test_the_divergence_is_that_of_two_normals() -> None:
    mean, log_variance = torch.randn(5, 3, generator=rng()), torch.randn(5, 3, generator=rng(1))
    posterior = Normal(mean, (0.5 * log_variance).exp())
    expected = kl_divergence(posterior, Normal(torch.zeros(3), torch.ones(3))).sum(1)
    assert torch.allclose(losses.divergence(mean, log_variance), expected, atol=1e-5)


@pytest.mark.parametrize("likelihood", ["bernoulli", "gaussian"])
def test_reconstruction_is_a_log_likelihood(likelihood: str) -> None:
    logits, images = torch.randn(4, 1, 2, 2, generator=rng()), torch.rand(4, 1, 2, 2)
    p = logits.sigmoid()
    by_hand = -(images * p.log() + (1 - images) * (1 - p).log())
    if likelihood == "gaussian":
        by_hand = -Normal(p, losses.SIGMA).log_prob(images)
    found = losses.reconstruction(likelihood, logits, images)
    assert torch.allclose(found, by_hand.flatten(1).sum(1), atol=1e-4)


def test_more_codes_tighten_the_weighted_bound(task: Any) -> None:
    model, images = model_of(VAE).eval(), task.batch("test", torch.arange(64))
    with torch.no_grad():
        one, many = (
            losses.weighted_bound(model, "bernoulli", images, k, rng()).mean() for k in (1, 64)
        )
        lost, kl, _ = losses.evidence(model, "bernoulli", images, rng())
    assert many < one
    assert one == pytest.approx(float((lost + kl).mean()), rel=0.05)  # one code: the ELBO


@pytest.mark.parametrize(
    ("loss", "judged", "own"),
    [("hinge", 0.5 + 1.5, -0.5), ("non-saturating", 1.4481, 0.4741), ("wasserstein", 0.0, -0.5)],
)
def test_the_games_by_hand(loss: str, judged: float, own: float) -> None:
    half = torch.tensor([0.5])
    critic, maker = losses.games()[loss]
    assert float(critic(half, half)) == pytest.approx(judged, abs=1e-4)
    assert float(maker(half)) == pytest.approx(own, abs=1e-4)


def test_the_penalty_is_the_distance_of_the_slope_from_one() -> None:
    real, fake = torch.rand(6, 1, 2, 2), torch.rand(6, 1, 2, 2)

    def critic(x: Tensor) -> Tensor:
        return 3 * x.flatten(1)[:, 0]

    assert float(losses.penalty(critic, real, fake, rng())) == pytest.approx(4, abs=1e-5)

    dead = nn.Linear(4, 1)
    nn.init.zeros_(dead.weight)
    found = losses.penalty(lambda x: dead(x.flatten(1)), real, fake, rng())
    found.backward()
    assert found.item() == pytest.approx(1, abs=1e-4)
    assert dead.weight.grad is not None
    assert torch.isfinite(dead.weight.grad).all()


def test_adversarial_features_cost_more_and_leave_nothing_behind() -> None:
    model, images = model_of(DCGAN), torch.rand(8, 1, 8, 8, generator=rng())
    plain, hard = (losses.Critic("hinge", step=s)(model, images, rng()) for s in (0.0, 0.01))
    assert float(hard.detach()) > 2 * float(plain.detach())
    maker = losses.Maker("hinge", step=0.01)(model, images, rng())
    maker.backward()
    assert all(p.grad is not None for p in model.generator.parameters())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


def test_a_teacher_pulls_towards_its_verdicts(task: Any) -> None:
    student, teacher = model_of(DCGAN), model_of(DCGAN, seed=1)
    batch = task.batch("train", torch.arange(8))
    with torch.no_grad():  # an opinion of its own: undrawn, every verdict is even
        teacher.discriminator.read.weight.mul_(100)
    (alone, *_), (taught, *_) = task.objectives(student), task.taught(teacher).objectives(student)
    (same, *_) = task.taught(model_of(DCGAN)).objectives(student)
    for part in (student, teacher):
        part.eval()
    plain, pulled, agreed = (
        part.loss(student, batch, rng()).item() for part in (alone, taught, same)
    )
    assert pulled > plain + 1e-4
    assert agreed == pytest.approx(plain, abs=1e-5)
    with pytest.raises(BadInput, match="only a discriminator is taught"):
        task.taught(model_of(VAE))


# -- names and models ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("generation/", "is no image data set"),
        ("generation/glue/cola", "'glue/cola' is no image data set"),
        ("generation/mnits", "did you mean .*mnist"),
        ("generation/digits@hing", "unknown option .* did you mean 'hinge'"),
        ("generation/digits@critic-0", "unknown option"),
    ],
)
def test_names_that_say_nothing(name: str, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        task_of(name)


def test_options_in_the_name_change_the_objective() -> None:
    task = task_of("generation/digits@wasserstein@critic-3@adv-aug")
    critic, maker = task.objectives(model_of(DCGAN))
    assert (critic.repeats, critic.averaged, maker.batch) == (3, False, "shared")
    assert critic.loss == losses.Critic("wasserstein", None, 0.01)
    (bound,) = task_of("generation/digits@beta-4@gaussian").objectives(model_of(VAE))
    assert bound.loss == losses.Bound("gaussian", 4.0)
    with pytest.raises(BadInput, match="critic is no setting of model kind 'vae'"):
        task_of("generation/digits@critic-3").objectives(model_of(VAE))
    with pytest.raises(BadInput, match=r"unknown loss of a gan .* Known: hinge"):
        task_of("generation/digits@gaussian").objectives(model_of(DCGAN))


def test_too_few_images_are_said_before_any_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(generation, "SMALL", (20, 64, 400))
    task = task_of("generation/digits")
    with pytest.raises(BadInput, match=r"has 300 validation images; .* 401 or more are needed"):
        task.objectives(model_of(DCGAN))
    assert task.objectives(model_of("ae-linear-4x0.1")), "reconstructions are judged one by one"


def test_the_features_are_those_of_the_judge() -> None:
    for name, held in (("digits", generation.SMALL), ("mnist", generation.LARGE)):
        signature = task_of(name).signature
        assert adapter_of("judge").build("judge", signature).fc1.out_features == held[2]


def test_models_that_make_no_images_are_refused() -> None:
    with pytest.raises(BadInput, match=r"'lenet-300-100' makes none.* vae or dcgan"):
        task_of("generation/digits").prepared("lenet-300-100")
    with pytest.raises(BadInput, match="has kind None"):
        task_of("generation/digits").objectives(nn.Linear(2, 2))


def test_each_kind_has_a_yardstick(task: Any) -> None:
    found = {name: task.yardstick(name) for name in (DCGAN, VAE, "ae-linear")}
    assert [f.headline for f in found.values()] == ["cfd", "nelbo", "reconstruction"]
    assert not any(f.higher_is_better for f in found.values())
    assert all(f.relative for f in found.values())


# -- two networks in one loop --------------------------------------------------------------------


def test_objectives_train_their_own_network_alone() -> None:
    task, model = Blind("generation/digits"), model_of(DCGAN)
    before = {n: p.detach().clone() for n, p in model.named_parameters()}
    only = task.objectives(model)[0]
    task.objectives = lambda _: [only]  # type: ignore[method-assign,assignment]
    Loop(model, task, TRAINING, seed=0).run()
    changed = {n.split(".")[0] for n, p in model.named_parameters() if not p.equal(before[n])}
    assert changed == {"discriminator"}


def test_masks_hold_on_both_networks_and_the_average() -> None:
    """A thousand steps of Adam, on a model of 5,000 weights."""
    task, model = Blind("generation/digits"), model_of("dcgan-4x0.02")
    entries = adapter_of(DCGAN).prunable(model)
    masks = Masks({n: torch.rand(model.get_parameter(n).shape) < 0.5 for n in entries})
    training = Training(1000, 8, learning_rate=1e-3, average=0.99, evaluate_every=500)
    loop = Loop(model, task, training, seed=0, masks=masks)
    loop.run()
    assert {loop.names[p].split(".")[0] for p in loop.average} == {"generator"}
    for name, mask in masks.items():
        weight = model.get_parameter(name)
        assert not weight[~mask].any()
        assert weight[mask].any()
        if weight in loop.average:
            assert not loop.average[weight][~mask].any()
            assert not loop.average[weight].equal(weight)
    assert {"train_loss_discriminator", "train_loss_generator"} <= loop.rows[0].keys()


def test_rewinding_a_spectral_norm_gan_is_exact() -> None:
    """Parameters, u and v, batch statistics, the average and both optimisers come back."""

    def trained(start: Snapshot | None, end: int) -> Loop:
        loop = Loop(model_of(SNGAN), Blind(name), TRAINING, seed=0, start=start, end=end)
        loop.run()
        return loop

    name = "generation/digits@critic-2"
    middle = trained(None, 3).snapshot()
    vectors = [n for n in middle.state if n.endswith(("._u", "._v"))]
    assert vectors, "spectral norm keeps its vectors in the state"
    assert any("running_mean" in n for n in middle.state)
    assert {n.split(":")[0] for n in middle.optimizer} == {"discriminator", "generator"}
    ended, straight = trained(middle, 6).snapshot(), trained(None, 6).snapshot()
    again = Snapshot.from_tensors(middle.tensors(), middle.iteration, middle.extra)
    for part in ("state", "optimizer", "average"):
        assert getattr(ended, part).keys() == getattr(straight, part).keys()
        for key, tensor in getattr(straight, part).items():
            assert tensor.equal(getattr(ended, part)[key]), (part, key)
    cold = model_of(SNGAN).state_dict()
    assert any(not again.state[n].equal(cold[n]) for n in vectors)


def test_a_penalty_that_is_not_finite_names_its_loss() -> None:
    task, model = Blind("generation/digits"), model_of("wgan-gp-8x0.05")
    with torch.no_grad():
        next(model.discriminator.parameters()).fill_(1e30)
    with pytest.raises(Diverged, match=r"the loss discriminator is (nan|inf) at iteration 0"):
        Loop(model, task, TRAINING, seed=0).run()


# -- looks ---------------------------------------------------------------------------------------


def test_what_is_measured_of_each_kind(task: Any) -> None:
    sampled = {"cfd", "cfd_floor", "kid", "precision", "recall", "density", "coverage"}
    sampled |= {"entropy", "memorised", "cfd_1", "cfd_2", "loss"}
    found = task.evaluate(model_of(DCGAN), "test")
    assert found.keys() == sampled
    assert found["loss"] == found["cfd"] > found["cfd_floor"]
    vae = task.evaluate(model_of(VAE), "test")
    assert vae.keys() == sampled | {"nelbo", "reconstruction", "kl", "iwae", "active_units"}
    assert vae["nelbo"] == pytest.approx(vae["reconstruction"] + vae["kl"])
    assert vae["loss"] == vae["nelbo"]
    assert "cfd" not in task.evaluate(model_of(VAE), "validation")
    plain = task.evaluate(model_of("ae-linear-4x0.1"), "test")
    assert plain.keys() == {"reconstruction", "mse", "accuracy", "loss"}


def test_looks_are_repeatable_and_change_nothing(task: Any) -> None:
    model = model_of(DCGAN)
    state = {n: t.clone() for n, t in model.state_dict().items()}
    torch.manual_seed(3)
    draw = torch.rand(1)
    torch.manual_seed(3)
    assert task.evaluate(model, "validation") == task.evaluate(model, "validation")
    task.pictures(model)
    task.flags(model)
    assert torch.rand(1).equal(draw)
    assert all(t.equal(state[n]) for n, t in model.state_dict().items())
    assert model.training
    assert all(p.grad is None for p in model.parameters())


def test_pictures(task: Any) -> None:
    found = task.pictures(model_of(VAE))
    assert {n: tuple(t.shape) for n, t in found.items()} == {
        "samples": (32, 1, 8, 8),
        "interpolation": (4, 8, 1, 8, 8),
        "originals": (16, 1, 8, 8),
        "reconstructions": (16, 1, 8, 8),
    }
    assert all(t.dtype == torch.uint8 for t in found.values())
    same = task.pictures(model_of(VAE, seed=1))
    assert same["originals"].equal(found["originals"])
    assert not same["samples"].equal(found["samples"])
    assert task.pictures(model_of(DCGAN)).keys() == {"samples", "interpolation"}
    assert task.pictures(model_of("ae-linear-4x0.1")).keys() == {"originals", "reconstructions"}


def test_a_collapsed_generator_is_flagged_and_has_a_distance(task: Any) -> None:
    model = model_of(DCGAN)
    with torch.no_grad():
        model.generator.project.weight.mul_(50)
    assert task.flags(model) == ()
    with torch.no_grad():
        for parameter in model.generator.parameters():
            parameter.zero_()
    assert "collapsed" in task.flags(model)
    assert 0 < task.evaluate(model, "validation")["cfd"] < float("inf")


def test_networks_without_slope_are_flagged(task: Any) -> None:
    model = model_of(DCGAN)
    with torch.no_grad():
        for parameter in model.discriminator.parameters():
            parameter.zero_()
    assert "dead-generator" in task.flags(model)


def test_images_are_those_of_the_data_in_unit_range() -> None:
    task, digits = task_of("generation/digits"), task_of("digits")
    batch = task.batch("test", torch.arange(4))
    assert batch.dtype == torch.float32
    assert (batch * 16).round().to(torch.uint8).equal(digits.splits["test"].pixels[:4])
    assert task.size("train") == digits.size("train")
    assert task.fingerprint() != digits.fingerprint()
    assert generation_looks.made(model_of(DCGAN), 3).shape == (3, 1, 8, 8)


def test_judges_handed_in_are_those_trained_here(task: Any, tmp_path: Path) -> None:
    """The engine trains judges as jobs; a task by itself trains the same ones."""
    from lth_zoo.engines.local import run
    from lth_zoo.session import Execution, read_state
    from lth_zoo.store import Store

    jobs = judges_of("generation/digits", task.fingerprint())
    assert list(jobs) == ["judge-0", "judge-1", "judge-2"]
    store = Store(tmp_path)
    assert not run([jobs["judge-0"]], store, Execution()).failed
    entry = store.entry(jobs["judge-0"])
    assert entry is not None
    other: Any = task_of("generation/digits")
    other.judged_by({"one": lambda: read_state(entry).state})
    model = model_of(DCGAN)
    assert other.evaluate(model, "validation") == task.evaluate(model, "validation")


def test_without_judges_it_is_said() -> None:
    with pytest.raises(BadInput, match="has no judges yet"):
        task_of("generation/digits").evaluate(model_of(DCGAN), "validation")


def test_noise_is_the_iterations_own() -> None:
    model = model_of(DCGAN)
    one, two = (losses.noise(3, model, generator(0, "noise", i), "cpu") for i in (0, 1))
    assert one.shape == (3, 8)
    assert not one.equal(two)
