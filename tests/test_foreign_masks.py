"""Masks made elsewhere become tickets: torch prune, and plain dictionaries of either polarity."""

from __future__ import annotations

import pytest
import tiny
import torch
from safetensors.torch import save_file
from torch import nn
from torch.nn.utils import prune

from lth_zoo.errors import BadInput
from lth_zoo.ticket import Ticket


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.one = nn.Linear(6, 5)
        self.norm = nn.BatchNorm1d(5)
        self.two = nn.Linear(5, 3)

    def forward(self, x):
        return self.two(self.norm(self.one(x)).relu())


@pytest.fixture
def pruned() -> nn.Module:
    torch.manual_seed(0)
    model = Net().eval()
    prune.l1_unstructured(model.one, "weight", amount=0.4)
    prune.random_unstructured(model.two, "weight", amount=7)
    prune.l1_unstructured(model.two, "bias", amount=1)
    return model


def plain(model: nn.Module) -> dict[str, torch.Tensor]:
    return {n: t.clone() for n, t in model.state_dict().items()}


MASK = torch.tensor([[1, 0, 1], [0, 0, 1.0]])
WEIGHTS = {"w": torch.arange(1.0, 7).reshape(2, 3), "b": torch.ones(2)}


@pytest.mark.parametrize("form", ["model", "state dict"])
def test_torch_prune_comes_in_whole(pruned, tmp_path, form):
    ticket = Ticket.from_torch_prune(pruned if form == "model" else pruned.state_dict())
    assert ticket.masks.counts == {
        "one.weight": (18, 30),
        "two.bias": (2, 3),
        "two.weight": (8, 15),
    }
    assert ticket.meta["origin"] == "torch.nn.utils.prune"
    back = Ticket.from_pretrained(ticket.save_pretrained(tmp_path / "t"))
    assert back.id == ticket.id
    model = Net().eval()
    back.apply_to(model)
    x = torch.randn(4, 6)
    assert model(x).equal(pruned(x))
    assert {n for n, _ in model.named_parameters()} == {n for n, _ in Net().named_parameters()}


def test_the_users_model_is_left_as_it_was(pruned):
    before = plain(pruned)
    ticket = Ticket.from_torch_prune(pruned)
    for tensor in ticket.state.values():
        tensor.zero_()
    assert all(t.equal(before[n]) for n, t in pruned.state_dict().items())


def test_a_model_that_nobody_pruned_is_refused():
    for source in (Net(), Net().state_dict(), {"x_mask": torch.ones(2), "x": torch.ones(2)}):
        with pytest.raises(BadInput, match="nothing was pruned by torch prune"):
            Ticket.from_torch_prune(source)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bool, torch.uint8, torch.int64])
def test_both_polarities_mean_the_same(dtype):
    keep = Ticket.from_masks({"w": MASK.to(dtype)}, WEIGHTS, polarity="keep")
    removed = Ticket.from_masks({"w": (1 - MASK).to(dtype)}, WEIGHTS, polarity="prune")
    assert keep.id == removed.id
    assert keep.state["w"].tolist() == [[1, 0, 3], [0, 0, 6]]
    assert keep.state["b"].tolist() == [1, 1]
    assert keep.sparsity == 0.5


@pytest.mark.parametrize("polarity", ["kept", "", None, True])
def test_the_polarity_must_be_said(polarity):
    with pytest.raises(BadInput, match=r"is not keep \(1 = kept\) or prune \(1 = removed\)"):
        Ticket.from_masks({"w": MASK}, WEIGHTS, polarity=polarity)


@pytest.mark.parametrize("odd", [0.5, 2.0, -1.0, float("nan")])
def test_a_mask_that_is_not_binary_is_named(odd):
    mask = MASK.clone()
    mask[0, 0] = odd
    with pytest.raises(BadInput, match="mask 'w' holds other values than 0 and 1"):
        Ticket.from_masks({"w": mask}, WEIGHTS, polarity="keep")


# -- from the command line -----------------------------------------------------------------


@pytest.mark.parametrize("suffix", ["safetensors", "pt"])
def test_import_of_a_torch_prune_checkpoint(pruned, tmp_path, capsys, suffix):
    path = tmp_path / f"model.{suffix}"
    if suffix == "pt":
        torch.save(pruned.state_dict(), path)
    else:
        save_file(plain(pruned), path)
    answer = tiny.cli(capsys, "import", path, "--out", tmp_path / "t", "--json")
    assert answer.code == 0
    assert answer.json["id"] == Ticket.from_torch_prune(pruned).id
    assert Ticket.from_pretrained(tmp_path / "t").id == answer.json["id"]


def test_import_of_masks_and_weights(tmp_path, capsys):
    save_file(WEIGHTS, tmp_path / "w.safetensors")
    save_file({"w": MASK}, tmp_path / "m.safetensors")
    command = ["import", tmp_path / "w.safetensors", "--masks", tmp_path / "m.safetensors"]
    unsaid = tiny.cli(capsys, *command, "--out", tmp_path / "t")
    assert unsaid.code == 2
    assert "--polarity keep or --polarity prune" in unsaid.err
    assert not (tmp_path / "t").exists()
    said = tiny.cli(capsys, *command, "--out", tmp_path / "t", "--polarity", "prune", "--json")
    assert (said.json["kept"], said.json["prunable"], said.json["all"]) == (3, 6, 8)


class Bomb:
    def __reduce__(self):
        return (open, ("exploded", "w"))


def test_import_runs_no_code(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"w_orig": Bomb()}, tmp_path / "bomb.pt")
    answer = tiny.cli(capsys, "import", "bomb.pt")
    assert answer.code == 2
    assert "bomb.pt is no file of tensors" in answer.err
    assert not (tmp_path / "exploded").exists()
    assert not (tmp_path / "ticket").exists()
