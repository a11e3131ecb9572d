"""Tickets: the same from anywhere, whole or refused, and no code is run to read one."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from forge import find, reseal
from torch import nn

import lth_zoo as lz
from lth_zoo.errors import BadInput, StoreError, TicketError
from lth_zoo.folder import CARD, MASKS, META, STATE, sealed
from lth_zoo.masks import Masks
from lth_zoo.ticket import Ticket

DIGESTED = (META, MASKS, STATE)


# -- there and back ------------------------------------------------------------------------


def test_there_and_back(ticket, folder):
    back = Ticket.from_pretrained(folder)
    assert back.id == ticket.id
    assert back.masks == ticket.masks
    assert back.meta == json.loads(json.dumps(ticket.meta))
    assert back.state.keys() == ticket.state.keys()
    assert all(
        back.state[n].equal(t) and back.state[n].dtype == t.dtype for n, t in ticket.state.items()
    )
    assert sorted(p.name for p in folder.iterdir()) == sorted([*DIGESTED, CARD])


def test_what_a_ticket_says_of_itself(ticket, folder):
    data = json.loads((folder / META).read_text())
    said = data["ticket"]
    assert data["schema"] == 1
    assert said["id"] == ticket.id
    assert said["counts"] == {"kept": 12_550, "prunable": 50_200, "all": 50_610}
    assert (said["model"], said["seed"], said["level"]) == ("lenet-300-100", 3, 2)
    assert said["recipe"]["finder"]["name"] == "imp"
    assert [row["level"] for row in said["curve"]] == [0, 1, 2]
    assert said["cost"]["search_dense_runs"] == 2
    assert said["metrics"]["test"]["accuracy"] == said["curve"][-1]["value"]
    assert said["versions"]["torch"] == torch.__version__
    text = (folder / CARD).read_text()
    assert "12,550 of 50,200 prunable weights" in text
    assert "not faster by itself" in text


def test_the_same_search_has_the_same_id_and_another_has_not(ticket, store, tmp_path):
    assert find(tmp_path).id == ticket.id == find(store).id
    others = [find(store, seed=4), find(store, sparsity=0.5)]
    assert len({ticket.id, *(t.id for t in others)}) == 3
    # The way it ran and what it is called are no part of it.
    assert ticket.with_meta(cost={}, note="mine").id == ticket.id
    assert ticket.with_meta(recipe_key="other").id != ticket.id


def test_the_id_counts_minus_zero_as_zero(ticket):
    state = {n: t.clone() for n, t in ticket.state.items()}
    name = next(iter(ticket.masks))
    state[name][~ticket.masks[name]] = -0.0
    assert Ticket(ticket.masks, state, ticket.meta).id == ticket.id


def test_a_mask_is_stored_as_one_bit_a_weight(folder):
    raw = (folder / MASKS).read_bytes()
    header = 8 + int.from_bytes(raw[:8], "little")
    assert len(raw) - header == (64 * 300) // 8 + (300 * 100) // 8 + (100 * 10) // 8
    kept, others = 12_550, 300 + 100 + 10
    raw = (folder / STATE).read_bytes()
    assert len(raw) - 8 - int.from_bytes(raw[:8], "little") == 4 * (kept + others)


# -- use -----------------------------------------------------------------------------------


def test_materialize_gives_exact_zeros_and_the_rewind_values(ticket, store):
    random_state = torch.get_rng_state()
    model = ticket.materialize()
    assert torch.get_rng_state().equal(random_state)
    from lth_zoo.protocols import adapter_of
    from lth_zoo.seeds import seeded
    from lth_zoo.tasks.embedded import Digits

    with seeded(3, "init"):
        start = adapter_of("lenet-300-100").build("lenet-300-100", Digits("digits").signature)
    for name, tensor in start.state_dict().items():
        got = model.state_dict()[name]
        mask = (
            ticket.masks[name] if name in ticket.masks else torch.ones_like(got, dtype=torch.bool)
        )
        assert got[mask].equal(tensor[mask])
        assert not got[~mask].any()
        assert not torch.signbit(got[~mask]).any()
    zeros = sum(int((p == 0).sum()) for n, p in model.named_parameters() if n in ticket.masks)
    assert zeros == 50_200 - 12_550
    assert model(torch.zeros(2, 1, 8, 8)).shape == (2, 10)


def test_a_ticket_at_a_rewind_step_holds_that_step(tmp_path):
    late = find(tmp_path, finder=lz.finders.IMP(rate=0.5, rewind="step=10"))
    init = find(tmp_path)
    name = "fc1.weight"
    both = late.masks[name] & init.masks[name]
    assert not late.state[name][both].equal(init.state[name][both])
    (snapshot,) = [p for p in tmp_path.glob("train/*/state.safetensors") if snapshot_of(p) == 10]
    from lth_zoo.formats import load_snapshot

    there = load_snapshot(snapshot.read_bytes()).state[name]
    assert late.state[name][late.masks[name]].equal(there[late.masks[name]])


def snapshot_of(path: Path) -> int:
    config = json.loads((path.parent / "manifest.json").read_text())["config"]
    return config["end"] if config["keep"] == "snapshot" else -1


def test_a_model_of_another_shape_is_refused_and_the_tensor_named(ticket):
    class Net(nn.Module):
        def __init__(self, width=300):
            super().__init__()
            self.fc1 = nn.Linear(64, width)
            self.fc2 = nn.Linear(width, 100)
            self.fc3 = nn.Linear(100, 10)

    ticket.apply_to(Net())
    narrow = Net(200)
    before = {n: t.clone() for n, t in narrow.state_dict().items()}
    with pytest.raises(TicketError, match=r"'fc\d.\w+' is \(.*200.*\) in the model, \(.*300"):
        ticket.apply_to(narrow)
    assert all(narrow.state_dict()[n].equal(t) for n, t in before.items())
    less, more = Net(), Net()
    del less.fc3
    more.extra = nn.Linear(2, 2)
    with pytest.raises(TicketError, match=r"the model has no tensor 'fc3\.\w+'"):
        ticket.apply_to(less)
    with pytest.raises(TicketError, match=r"the ticket has no tensor 'extra.bias' \(of 2 missing"):
        ticket.apply_to(more)


def test_somebodys_code_runs_only_when_trusted(ticket, folder, tmp_path, monkeypatch):
    (tmp_path / "evil.py").write_text("raise SystemExit('code was run')\n")
    monkeypatch.syspath_prepend(tmp_path)
    reseal(folder, lambda data: data["ticket"].update(model="evil:Net"))
    named = Ticket.from_pretrained(folder)
    with pytest.raises(BadInput, match=r"'evil:Net' imports code; pass trust_code=True"):
        named.materialize()
    with pytest.raises(SystemExit, match="code was run"):
        named.materialize(trust_code=True)


@pytest.mark.parametrize("model", [None, "object/Net-0123"])
def test_a_ticket_without_a_model_says_what_to_do(ticket, model):
    with pytest.raises(BadInput, match=r"use apply_to\(model\)"):
        ticket.with_meta(model=model).materialize()


# -- places --------------------------------------------------------------------------------


def test_saving_over_a_ticket_replaces_it_whole(ticket, store, folder):
    (folder / "old.txt").write_text("of the old one")
    other = find(store, sparsity=0.5)
    other.save_pretrained(folder)
    assert Ticket.from_pretrained(folder).id == other.id != ticket.id
    assert not (folder / "old.txt").exists()
    assert [p.name for p in folder.parent.iterdir()] == ["ticket"]


def test_saving_over_anything_else_is_refused(ticket, tmp_path):
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter").write_text("precious")
    (tmp_path / "file").write_text("precious")
    with pytest.raises(BadInput, match="thesis holds other files"):
        ticket.save_pretrained(tmp_path / "thesis")
    with pytest.raises(BadInput, match="file is a file"):
        ticket.save_pretrained(tmp_path / "file")
    assert (tmp_path / "thesis" / "chapter").read_text() == "precious"
    (tmp_path / "empty").mkdir()
    assert Ticket.from_pretrained(ticket.save_pretrained(tmp_path / "empty")).id == ticket.id


def test_a_disk_that_is_full_leaves_the_old_ticket(ticket, store, folder, monkeypatch):
    plain = Path.write_bytes

    def full(path, data):
        if path.name == STATE:
            raise OSError(28, "No space left on device")
        return plain(path, data)

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(StoreError, match=r"cannot write .*ticket: No space left on device"):
        find(store, sparsity=0.5).save_pretrained(folder)
    monkeypatch.undo()
    assert Ticket.from_pretrained(folder).id == ticket.id
    assert [p.name for p in folder.parent.iterdir()] == ["ticket"]


class FakeHub:
    """What push_to_hub talks to; keeps what was uploaded."""

    made: list = []  # noqa: RUF012 - one test, one list
    sent: dict = {}  # noqa: RUF012

    def __init__(self, token=None):
        self.token = token

    def create_repo(self, repo_id, private=False, exist_ok=False):
        self.made.append((repo_id, private, exist_ok, self.token))

    def upload_folder(self, repo_id, folder_path, commit_message):
        files = sorted(p for p in Path(folder_path).rglob("*") if p.is_file())
        self.sent[repo_id] = {str(p.relative_to(folder_path)): p.read_bytes() for p in files}
        return f"https://hub/{repo_id}"


def test_a_push_uploads_exactly_the_folder(ticket, folder, tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.HfApi", FakeHub)
    address = ticket.push_to_hub("me/mine", private=True, token="secret")
    assert address == "https://hub/me/mine"
    assert FakeHub.made == [("me/mine", True, True, "secret")]
    sent = FakeHub.sent["me/mine"]
    assert sent == {p.name: p.read_bytes() for p in folder.iterdir()}
    for name, data in sent.items():
        (tmp_path / "got").mkdir(exist_ok=True)
        (tmp_path / "got" / name).write_bytes(data)
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda *a, **k: tmp_path / "got")
    assert Ticket.from_pretrained("me/mine").id == ticket.id


@pytest.mark.parametrize("name", ["nobody/nothing", "./no/such/folder", "no spaces allowed"])
def test_what_cannot_be_had_offline_is_one_clear_error(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(TicketError, match="is neither a ticket folder nor to be had from the hub"):
        Ticket.from_pretrained(name)


# -- construction --------------------------------------------------------------------------


def test_masks_and_state_must_fit(ticket):
    with pytest.raises(TicketError, match="mask 'odd' has no tensor in the state"):
        Ticket(Masks({"odd": torch.ones(2, dtype=torch.bool)}), ticket.state)
    with pytest.raises(TicketError, match=r"'fc1.weight': the mask has shape \(3, 5\)"):
        Ticket(Masks({"fc1.weight": torch.ones(3, 5, dtype=torch.bool)}), ticket.state)


def test_a_ticket_shares_nothing_with_the_state_it_was_made_of(ticket):
    state = {n: t.clone() for n, t in ticket.state.items()}
    made = replace(ticket, state=state)
    for tensor in state.values():
        tensor.fill_(7)
    assert made.id == ticket.id


def test_the_seal_covers_files_and_metadata():
    one = sealed({"a": 1}, {"x": b"1"})
    assert one == sealed({"a": 1}, {"x": b"1"})
    assert len({one, sealed({"a": 2}, {"x": b"1"}), sealed({"a": 1}, {"x": b"2"})}) == 3
