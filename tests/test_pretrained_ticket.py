"""Tickets of pre-trained models: small, checked against their checkpoint, at home in any head."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import hf_models
import pytest
import torch
from fake_bert import CLASSES, FAMILY, TOKENS, FakeBert, classifier, found, logits
from forge import reseal
from toys import pruned_are_zero

from lth_zoo import registry
from lth_zoo.errors import BadInput, TicketError
from lth_zoo.export.weights import write
from lth_zoo.folder import MASKS, STATE
from lth_zoo.masks import Masks
from lth_zoo.seeds import seeded
from lth_zoo.ticket import Ticket


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return hf_models.save_tiny(tmp_path_factory.mktemp("hub") / "bert", answer="base")


@pytest.fixture
def family(folder, monkeypatch) -> FakeBert:
    fake = FakeBert(folder)
    monkeypatch.setitem(registry._ROWS["adapters"], FAMILY, lambda: fake)
    return fake


@pytest.fixture
def ticket(family) -> Ticket:
    return found(family, CLASSES)


# -- what it holds -------------------------------------------------------------------------


def test_names_are_the_bases_and_only_the_head_is_kept(ticket, family):
    assert all(n.startswith("encoder.layer.") for n in ticket.masks)
    assert sorted(ticket.state) == ["classifier.bias", "classifier.weight"]
    pointer = ticket.pretrained
    assert (pointer.id, pointer.revision) == ("some/bert", "0123abc")
    assert pointer.fingerprint == family.checkpoint(FAMILY).fingerprint
    assert pointer.digests.keys() == family.checkpoint(FAMILY).digests.keys()
    assert {len(text) for text in pointer.digests.values()} == {16}
    assert "transformers" in pointer.versions
    model = ticket.materialize()
    assert ticket.counts()["all"] == sum(t.numel() for t in model.state_dict().values())


def test_there_and_back_is_the_same_ticket_in_a_small_folder(ticket, tmp_path):
    place = ticket.save_pretrained(tmp_path / "ticket")
    back = Ticket.from_pretrained(place)
    assert (back.id, back.masks) == (ticket.id, ticket.masks)
    assert back.meta == json.loads(json.dumps(ticket.meta))
    assert (place / STATE).stat().st_size < 1000
    assert (place / MASKS).stat().st_size < ticket.masks.size / 8 + 3000
    assert "some/bert@0123abc" in (place / "README.md").read_text()


def test_the_id_covers_the_checkpoint(ticket):
    said = ticket.meta["pretrained"]
    other = ticket.with_meta(pretrained={**said, "fingerprint": "other"})
    first = next(iter(said["digests"]))
    moved = {**said["digests"], first: "0" * 16}
    assert (
        len({ticket.id, other.id, ticket.with_meta(pretrained=said | {"digests": moved}).id}) == 3
    )


def test_a_rewound_start_is_kept_whole(family):
    late = found(family, CLASSES, step=1)
    assert late.pretrained is None
    assert "embeddings.word_embeddings.weight" in late.state
    model = late.materialize()
    name = "encoder.layer.0.intermediate.dense.weight"
    start = late.state[name]
    assert model.get_parameter(f"bert.{name}").equal(start)
    assert not start[~late.masks[name]].any()


def test_a_family_without_a_checkpoint_keeps_its_state(family):
    family.public = False
    whole = found(family, CLASSES)
    assert whole.pretrained is None
    assert len(whole.state) > 20
    assert not any(n.startswith("bert.") for n in [*whole.state, *whole.masks])
    assert pruned_are_zero(whole.materialize(), whole.masks_for(classifier(family.folder)))


def test_an_output_layer_tied_to_the_embeddings_is_not_copied(family):
    ticket = found(family, TOKENS)
    assert "cls.predictions.decoder.weight" not in ticket.state
    assert "cls.predictions.transform.dense.weight" in ticket.state
    assert "cls.predictions.bias" in ticket.state  # zeros equal other zeros by chance
    model = ticket.materialize()
    assert model.cls.predictions.decoder.weight is model.bert.embeddings.word_embeddings.weight


@pytest.mark.parametrize(
    "said",
    [3, [], {}, {"id": "x"}, {"digests": 1}, "bert", {"digests": {"a": 1}, "values": "many"}],
)
def test_a_pointer_that_is_none_is_refused(ticket, tmp_path, said):
    place = ticket.save_pretrained(tmp_path / "ticket")
    full = said if not isinstance(said, dict) or "id" in said else {**_pointer(ticket), **said}
    full = {} if said == {} else full
    reseal(place, lambda data: data["ticket"].update(pretrained=full))
    with pytest.raises(TicketError, match=str(place)):
        Ticket.from_pretrained(place)


def _pointer(ticket):
    return copy.deepcopy(ticket.meta["pretrained"])


def test_masks_need_a_tensor_or_a_pointer(ticket):
    with pytest.raises(TicketError, match="has no tensor in the state"):
        ticket.with_meta(pretrained=None)


# -- in a model ----------------------------------------------------------------------------


def test_materialize_is_the_checkpoint_masked_and_reloads_with_the_same_logits(
    ticket, folder, tmp_path
):
    from transformers import AutoModelForSequenceClassification

    model = ticket.materialize()
    plain, masks = classifier(folder), ticket.masks_for(model)
    for name, tensor in model.bert.state_dict().items():
        kept = ticket.masks[name] if name in ticket.masks else torch.ones_like(tensor).bool()
        assert tensor[kept].equal(plain.bert.state_dict()[name][kept])
        assert not tensor[~kept].any()
        assert not torch.signbit(tensor[~kept]).any()
    assert pruned_are_zero(model, masks)
    assert model.classifier.weight.equal(ticket.state["classifier.weight"])
    hooks = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks")
    assert not any(getattr(m, h) for m in model.modules() for h in hooks)
    assert not any(getattr(p, "_post_accumulate_grad_hooks", None) for p in model.parameters())
    model.save_pretrained(tmp_path / "model")
    again = AutoModelForSequenceClassification.from_pretrained(tmp_path / "model")
    assert logits(again).equal(logits(model))
    assert not logits(plain).equal(logits(model))
    assert ticket.apply_to(again) == masks  # and it still is the ticket


def test_a_model_of_ones_own_gets_the_ticket(ticket, folder):
    model = classifier(folder)
    masks = ticket.apply_to(model)
    assert logits(model).equal(logits(ticket.materialize()))
    with masks.enforced(model):
        pass
    assert masks == ticket.masks_for(model)
    assert all(n.startswith("bert.encoder.") for n in masks)


def test_another_tasks_head_stays(ticket, folder):
    for labels in (1, 2):
        model = classifier(folder, labels)
        head = copy.deepcopy(model.classifier)
        assert pruned_are_zero(model, ticket.apply_to(model))
        assert model.classifier.weight.equal(head.weight)


@pytest.mark.parametrize("kind", ["", "ForMaskedLM", "ForQuestionAnswering"])
def test_a_base_without_a_pooler_or_head_gets_the_ticket(ticket, folder, kind):
    import transformers

    model = getattr(transformers, f"AutoModel{kind}").from_pretrained(folder)
    masks = ticket.apply_to(model)
    assert len(masks) == len(ticket.masks)
    assert pruned_are_zero(model, masks)


def test_a_ticket_without_a_pooler_fits_a_model_that_has_one(family, folder):
    ticket = found(family, TOKENS)
    assert not any("pooler" in n for n in ticket.pretrained.digests)
    model = classifier(folder)
    assert pruned_are_zero(model, ticket.apply_to(model))


def test_a_masked_pooler_needs_a_pooler(family, folder):
    from transformers import AutoModelForMaskedLM

    ticket = found(family, CLASSES, names=["bert.pooler.dense.weight"])
    with pytest.raises(TicketError, match=r"the model has no tensor 'pooler\.dense\.weight'"):
        ticket.apply_to(AutoModelForMaskedLM.from_pretrained(folder))


def test_a_pruned_layer_that_the_checkpoint_lacks_travels_whole(family, folder):
    with seeded(5, "init"):
        some = family.build(FAMILY, CLASSES)
    names = [*family.prunable(some), "classifier.weight"]
    ticket = found(family, CLASSES, names=names)
    assert ticket.pretrained is not None
    weight, mask = ticket.state["classifier.weight"], ticket.masks["classifier.weight"]
    assert not weight[~mask].any()
    assert ticket.materialize().classifier.weight.equal(weight)
    with pytest.raises(TicketError, match=r"'classifier\.weight' is \(2, 16\) in the model"):
        ticket.apply_to(classifier(folder, 2))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"hidden_size": 32}, r"'encoder\.layer\.0\.\S+' is \(32, 32\) in the model, \(16, 16\)"),
        ({"num_hidden_layers": 1}, r"the model has no tensor 'encoder\.layer\.1\."),
        (
            {"num_hidden_layers": 3},
            r"the ticket has no tensor 'bert\.encoder\.layer\.2.*16 missing",
        ),
        ({}, r"\d+ of \d+ tensors differ from the ticket's start some/bert@0123abc: 'e"),
    ],
)
@pytest.mark.parametrize("start", ["ticket", "any"])
def test_another_architecture_or_revision_is_refused(ticket, settings, message, start):
    model = hf_models.tiny_model("bert", labels=3, **settings)
    before = copy.deepcopy(model.state_dict())
    if not settings and start == "any":
        assert pruned_are_zero(model, ticket.apply_to(model, start=start))
        return
    with pytest.raises(TicketError, match=message):
        ticket.apply_to(model, start=start)
    assert all(t.equal(before[n]) for n, t in model.state_dict().items())


def test_names_of_an_older_library_go_through_the_family(ticket, folder, family, monkeypatch):
    said = _pointer(ticket)
    said["digests"] = {n.replace("layer.", "block."): d for n, d in said["digests"].items()}
    masks = Masks({n.replace("layer.", "block."): m for n, m in ticket.masks.items()})
    old = Ticket(masks, ticket.state, {**ticket.meta, "pretrained": said})
    with pytest.raises(TicketError, match=r"the model has no tensor 'encoder\.block\.0"):
        old.apply_to(classifier(folder))

    def fit(masks, model):
        return Masks({"bert." + n.replace("block.", "layer."): m for n, m in masks.items()})

    monkeypatch.setattr(family, "fit", fit)
    model = classifier(folder)
    assert old.apply_to(model) == ticket.masks_for(model)


def test_the_hubs_commit_pins_what_is_built(ticket, family, monkeypatch):
    built = []
    monkeypatch.setitem(registry._ROWS["adapters"], "bert", lambda: family)  # asked first
    monkeypatch.setattr(family, "owns", lambda name: True)
    plain = family.build
    monkeypatch.setattr(family, "build", lambda n, s: built.append(n) or plain(n, s))
    commit = "0" * 39 + "f"
    said = {**_pointer(ticket), "revision": commit}
    ticket.with_meta(pretrained=said, model="some/bert").materialize()
    ticket.with_meta(pretrained=said, model="some/bert@main").materialize()
    ticket.materialize()
    assert built == [f"some/bert@{commit}"] * 2 + [FAMILY]


def test_another_family_is_refused(ticket):
    with pytest.raises(TicketError, match=r"the model has no tensor 'encoder\.layer\.0"):
        ticket.apply_to(hf_models.tiny_model("distilbert"))


def test_a_model_that_was_trained_since_is_refused_or_masked_as_it_is(ticket, folder):
    model = classifier(folder)
    with torch.no_grad():
        model.bert.encoder.layer[1].output.dense.weight.mul_(2)
    name = "encoder.layer.1.output.dense.weight"
    with pytest.raises(TicketError, match=f"1 of .*'{name}'; the model was trained since"):
        ticket.apply_to(model)
    before = copy.deepcopy(model)
    masks = ticket.apply_to(model, start="any")
    assert pruned_are_zero(model, masks)
    assert model.classifier.weight.equal(before.classifier.weight)
    for n, mask in masks.items():
        assert model.get_parameter(n)[mask].equal(before.get_parameter(n)[mask])


def test_what_differs_only_where_it_is_pruned_does_not_matter(ticket, folder):
    model = classifier(folder)
    name, mask = next(iter(ticket.masks.items()))
    with torch.no_grad():
        model.get_parameter(f"bert.{name}")[~mask] = 7.0
    assert pruned_are_zero(model, ticket.apply_to(model))


def test_half_precision_is_named_as_the_reason(ticket, folder):
    with pytest.raises(TicketError, match=r"or was loaded as torch\.bfloat16"):
        ticket.apply_to(classifier(folder).to(torch.bfloat16))


def test_a_start_that_does_not_exist_is_refused(ticket, folder):
    with pytest.raises(BadInput, match="'init' is not ticket"):
        ticket.apply_to(classifier(folder), start="init")


def test_a_checkpoint_that_changed_is_noticed_when_the_ticket_is_built(ticket, family, tmp_path):
    family.folder = hf_models.save_tiny(tmp_path / "other", answer="base", seed=1)
    with pytest.raises(TicketError, match="or is another revision"):
        ticket.materialize()


def test_export_writes_the_whole_network_in_the_models_names(ticket, tmp_path):
    import safetensors.torch

    answer = write(ticket, tmp_path / "model.safetensors")
    tensors = safetensors.torch.load_file(tmp_path / "model.safetensors")
    state = ticket.materialize().state_dict()
    assert tensors.keys() == state.keys()
    assert all(tensors[n].equal(t) for n, t in state.items())
    assert answer["tensors"] == len(tensors)


def test_export_writes_tied_tensors_once(family, tmp_path):
    import safetensors.torch

    write(found(family, TOKENS), tmp_path / "model.safetensors")
    names = safetensors.torch.load_file(tmp_path / "model.safetensors")
    assert "bert.embeddings.word_embeddings.weight" in names
    assert "cls.predictions.decoder.weight" not in names
