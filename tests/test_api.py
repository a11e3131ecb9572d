"""The Python calls: find a ticket by name, function or object, and judge it."""

from __future__ import annotations

import linecache
import sys
from pathlib import Path

import pytest
import tiny
import torch
from torch import nn

import lth_zoo as lz
from lth_zoo.api import run_recipes
from lth_zoo.errors import BadInput, JobFailed
from lth_zoo.objects import registered
from lth_zoo.session import Execution
from lth_zoo.store import Store
from lth_zoo.trials.verdict import LevelVerdict

SETTINGS = {"training": tiny.TRAINING, "finder": lz.finders.IMP(rate=0.5), "sparsity": 0.5}


class Mine(nn.Module):
    """A network of the user's own."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Flatten(), nn.Linear(64, 20), nn.ReLU(), nn.Linear(20, 10))

    def forward(self, x):
        return self.body(x)


class Scaled(nn.Linear):
    """A layer without a way to draw it anew."""

    reset_parameters = None

    def __init__(self):
        nn.Module.__init__(self)
        self.weight = nn.Parameter(torch.randn(10, 64) * 0.1)
        self.register_parameter("bias", None)

    def forward(self, x):
        return nn.functional.linear(x.flatten(1), self.weight)


def mine(seed=0) -> Mine:
    torch.manual_seed(seed)
    return Mine()


def stamps(store: Path) -> dict[Path, int]:
    return {p: p.stat().st_mtime_ns for p in store.glob("*/*/*")}


def test_find_by_name_and_again_at_once(tmp_path):
    ticket = lz.find("lenet-300-100", "digits", **SETTINGS, seed=5, store=tmp_path)
    assert ticket.meta["seed"] == 5
    assert ticket.sparsity == 0.5
    before = stamps(tmp_path)
    assert len(list(tmp_path.glob("*/*/manifest.json"))) == 4
    again = lz.find("lenet-300-100", "digits", **SETTINGS, seed=5, store=tmp_path)
    assert again.id == ticket.id
    assert stamps(tmp_path) == before


def test_find_goes_on_from_what_is_there(tmp_path):
    first = lz.find(**SETTINGS, store=tmp_path)
    before = stamps(tmp_path)
    deeper = lz.find(**SETTINGS | {"sparsity": 0.75}, store=tmp_path)
    assert before.items() <= stamps(tmp_path).items()
    assert len(list(tmp_path.glob("*/*/manifest.json"))) == 6
    assert all((~first.masks[n] & deeper.masks[n]).sum() == 0 for n in deeper.masks)


def test_find_by_function(tmp_path, monkeypatch):
    (tmp_path / "my_net.py").write_text(
        "from torch import nn\n\n\ndef net(signature):\n"
        "    return nn.Sequential(nn.Flatten(), nn.Linear(64, signature.output))\n"
    )
    monkeypatch.chdir(tmp_path)
    ticket = lz.find("my_net:net", **SETTINGS, store=tmp_path / "s")
    assert ticket.masks.counts == {"1.weight": (320, 640)}
    assert ticket.materialize(trust_code=True)(torch.zeros(1, 1, 8, 8)).shape == (1, 10)
    sys.modules.pop("my_net", None)


def test_find_with_an_object_starts_from_its_own_state(tmp_path):
    model = mine()
    before = {n: t.clone() for n, t in model.state_dict().items()}
    ticket = lz.find(model, **SETTINGS, store=tmp_path)
    assert all(t.equal(before[n]) for n, t in model.state_dict().items()), "it was changed"
    for name, mask in ticket.masks.items():
        assert ticket.state[name][mask].equal(before[name][mask])
        assert not ticket.state[name][~mask].any()
    assert ticket.state["body.1.bias"].equal(before["body.1.bias"])
    ticket.apply_to(model)
    assert ticket.masks.sparsity == 0.5


def test_an_object_is_keyed_by_class_source_and_state(tmp_path):
    known = lz.registry.names("adapters")
    ticket = lz.find(mine(), **SETTINGS, store=tmp_path)
    before = stamps(tmp_path)
    assert lz.find(mine(), **SETTINGS, store=tmp_path).id == ticket.id
    assert stamps(tmp_path) == before
    assert lz.find(mine(1), **SETTINGS, store=tmp_path).id != ticket.id
    assert len(stamps(tmp_path)) > len(before)
    assert lz.registry.names("adapters") == known


def sequence(activation: nn.Module) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 9), activation, nn.Linear(9, 10))


class Layer(nn.Module):
    """Something whose state does not tell how it works."""

    def __init__(self, power):
        super().__init__()
        self.power = power

    def forward(self, x):
        return x.abs() ** self.power


def test_models_of_one_state_that_compute_different_things_do_not_share(tmp_path):
    layers = (nn.ReLU(), nn.Tanh(), nn.LeakyReLU(0.1), nn.LeakyReLU(0.2), Layer(1), Layer(2))
    names = set()
    for layer in layers:
        with registered(sequence(layer), tmp_path) as (name, _):
            names.add(name)
    assert len(names) == len(layers)


def without_source(text: str) -> type[nn.Module]:
    space = {"nn": nn, "__name__": "nowhere"}
    exec(compile(text, "<console>", "exec"), space)
    return space["Net"]


def test_an_object_without_source_is_not_cached(tmp_path):
    linecache.checkcache()
    kind = without_source(
        "class Net(nn.Module):\n"
        "    def __init__(self):\n        super().__init__()\n"
        "        self.last = nn.Linear(64, 10)\n"
        "    def forward(self, x):\n        return self.last(x.flatten(1))\n"
    )
    ticket = lz.find(kind(), **SETTINGS, store=tmp_path / "s")
    assert ticket.sparsity == 0.5
    assert not (tmp_path / "s").exists()


def test_an_object_stays_in_this_process(tmp_path):
    with pytest.raises(BadInput, match="workers is 2; a model object stays in this process"):
        lz.find(mine(), **SETTINGS, store=tmp_path, workers=2)
    assert stamps(tmp_path) == {}


def test_reinit_draws_an_object_anew_or_names_the_tensor(tmp_path):
    fields = {"seeds": (0,), "controls": ("reinit", "shuffle")}
    for model, why in ((mine(), None), (Scaled(), "cannot draw 'weight' anew: Scaled has neither")):
        with registered(model, tmp_path) as (name, place):
            recipe = tiny.recipe(model=name, **fields)
            (finished,) = run_recipes([recipe], Store(place), Execution())
        arms = {r.arm for r in finished.results.runs if not r.error}
        if why is None:
            assert finished.outcome.failed == {}
            assert arms == {"dense", "ticket", "reinit", "shuffle"}
        else:
            assert [why in e for e in finished.outcome.failed.values()] == [True]
            assert arms == {"dense", "ticket", "shuffle"}


def test_verify_gives_the_verdict_of_the_tickets_level(tmp_path):
    ticket = lz.find(**SETTINGS | {"sparsity": 0.75}, store=tmp_path)
    verdict = lz.verify(ticket, seeds=(0, 1), controls=("reinit",), store=tmp_path)
    assert isinstance(verdict, LevelVerdict)
    assert verdict.level == 2
    assert verdict.sparsity == 0.75
    assert "n=2" in str(verdict)
    before = stamps(tmp_path)
    assert lz.verify(ticket, seeds=(0, 1), controls=("reinit",), store=tmp_path) == verdict
    assert stamps(tmp_path) == before


def test_a_ticket_of_an_object_is_verified_with_the_object(tmp_path):
    model, settings = mine(), {"seeds": (0,), "controls": (), "store": tmp_path}
    ticket = lz.find(model, **SETTINGS, store=tmp_path)
    with pytest.raises(BadInput, match="is an object of Python, and it is not at hand; give"):
        lz.verify(ticket, **settings)
    with pytest.raises(BadInput, match=r"the model given is 'object/.*, another one"):
        lz.verify(ticket, model=torch.nn.Sequential(torch.nn.Flatten()), **settings)
    before = stamps(tmp_path / "train")
    assert lz.verify(ticket, model=model, **settings).level == ticket.meta["level"]
    assert stamps(tmp_path / "train") == before  # the search was found done


def test_verify_of_imported_masks_is_refused(tmp_path):
    mask = torch.eye(3)
    ticket = lz.Ticket.from_masks({"w": mask}, {"w": mask}, polarity="keep")
    with pytest.raises(BadInput, match="carries no recipe"):
        lz.verify(ticket, store=tmp_path)
    assert stamps(tmp_path) == {}


def test_a_failed_job_is_an_error_with_its_reason(tmp_path):
    training = tiny.Training(iterations=20, learning_rate=1e30)
    with pytest.raises(JobFailed, match="1 jobs failed: diverged"):
        lz.find(**SETTINGS | {"training": training}, store=tmp_path)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"model": "lenet-300"}, "did you mean 'lenet-300-100'"),
        ({"task": "digit"}, "did you mean 'digits'"),
        ({"sparsity": 1}, "sparsity is 1"),
        ({"device": "cuda:7"}, "device 'cuda:7' is not available"),
        ({"excluded": ("fc1",)}, "did you mean 'exclude'"),
        ({"exclude": ("fc9",)}, "unknown layer 'fc9'; did you mean 'fc"),
    ],
)
def test_bad_input_is_an_error_before_any_work(tmp_path, fields, said):
    with pytest.raises(BadInput, match=said.replace("(", r"\(")):
        lz.find(**SETTINGS | fields, store=tmp_path)
    assert stamps(tmp_path) == {}


def test_verify_repeats_the_tickets_own_recipe(tmp_path):
    ticket = lz.find(**SETTINGS, store=tmp_path, prune_last=False)
    lz.verify(ticket, seeds=(0,), controls=(), store=tmp_path)
    assert len(list(tmp_path.glob("*/*/manifest.json"))) == 4
