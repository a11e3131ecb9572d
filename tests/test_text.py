"""The base of text tasks: tokens, padding, buckets, the cache on disk, metrics."""

from __future__ import annotations

import copy
import json

import numpy as np
import pytest
import torch
from hf_models import tiny_model, tiny_tokenizer
from tiny_texts import LENGTH, TinyText, TinyValue, sentences
from torch.nn import functional as F
from toys import same

from lth_zoo.errors import BadInput, DataError
from lth_zoo.kinds import with_random_labels
from lth_zoo.seeds import generator
from lth_zoo.tasks import encoding, metrics
from lth_zoo.tasks.rows import Rows, apart, bucketed, carve, chunks


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("LTH_ZOO_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "tokens"


@pytest.fixture
def task():
    return TinyText("tiny").bound(tiny_tokenizer(), LENGTH)


def model(task, spread=0.5):
    """A random model whose answers differ from text to text, if ``spread`` is large."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return tiny_model("bert", task.answer, task.outputs, initializer_range=spread)


# -- batches ----------------------------------------------------------------------------------


def test_a_batch_holds_each_text_as_the_tokenizer_alone_makes_it(task):
    at = torch.tensor([5, 0, 17, 5])
    inputs, labels = task.batch("train", at)
    rows = task.rows("train")
    alone = [
        tiny_tokenizer()(rows.texts[i], rows.pairs[i], truncation=True, max_length=LENGTH)
        for i in at.tolist()
    ]
    width = max(len(one["input_ids"]) for one in alone)
    assert inputs["input_ids"].shape == (4, width), "padded to the longest of the batch only"
    for row, one in enumerate(alone):
        count = len(one["input_ids"])
        for name in ("input_ids", "token_type_ids", "attention_mask"):
            assert inputs[name].dtype == torch.int64
            assert inputs[name][row, :count].tolist() == one[name]
            assert not inputs[name][row, count:].any()
    assert labels.tolist() == rows.labels[at].tolist()


def test_padding_goes_where_and_with_what_the_tokenizer_says():
    tokenizer = tiny_tokenizer()
    tokenizer.padding_side, tokenizer.pad_token = "left", "[MASK]"
    task = TinyText("tiny").bound(tokenizer, LENGTH)
    lengths = task.encoded("train").lengths
    at = torch.tensor([int(lengths.argmin()), int(lengths.argmax())])
    inputs, _ = task.batch("train", at)
    short = int(lengths.min())
    assert inputs["attention_mask"][0].tolist() == [0] * (LENGTH - short) + [1] * short
    assert (inputs["input_ids"][0, : LENGTH - short] == tokenizer.mask_token_id).all()
    right, _ = TinyText("tiny").bound(tiny_tokenizer(), LENGTH).batch("train", at)
    assert inputs["input_ids"][0, -short:].equal(right["input_ids"][0, :short])


def test_a_tokenizer_without_padding_or_types_is_read_too():
    tokenizer = tiny_tokenizer()
    tokenizer.model_input_names = ["input_ids", "attention_mask"]
    tokenizer.pad_token, tokenizer.eos_token = None, "[SEP]"
    inputs, _ = TinyText("tiny").bound(tokenizer).batch("train", torch.arange(9))
    assert set(inputs) == {"input_ids", "attention_mask"}
    assert (inputs["input_ids"][inputs["attention_mask"] == 0] == tokenizer.sep_token_id).all()


def test_texts_of_no_token_make_a_batch():
    encoded = encoding.ragged([[], []])
    inputs = encoding.Tokens(encoded, torch.device("cpu")).inputs(torch.arange(2), 7)
    assert inputs["input_ids"].tolist() == [[7], [7]]
    assert inputs["attention_mask"].tolist() == [[0], [0]]


def test_unbound_a_task_says_what_to_call_and_a_length_must_leave_room():
    task = TinyText("tiny")
    for use in (lambda: task.batch("train", torch.arange(2)), lambda: task.epoch(2, None)):
        with pytest.raises(BadInput, match=r"not bound to a model: call prepared"):
            use()
    for length in (0, -3, 4, 2.5, True):
        with pytest.raises(BadInput, match="whole number from 5 on"):
            task.bound(tiny_tokenizer(), length)
    with pytest.raises(BadInput, match="did you mean 'train'"):
        task.bound(tiny_tokenizer()).batch("trian", torch.arange(2))
    assert task.signature.input == (128,)
    assert task.bound(tiny_tokenizer(), LENGTH).signature.input == (LENGTH,)
    short = tiny_tokenizer()
    short.model_max_length = 16
    assert task.bound(short).signature.input == (16,)
    assert max(task.bound(short).encoded("train").lengths) == 16


def test_random_labels_stay_with_a_task_that_is_moved_later(task):
    corrupted = with_random_labels(task, 0)
    corrupted.to(torch.device("cpu"))
    at = torch.arange(task.size("train"))
    ours, theirs = task.batch("train", at)[1], corrupted.batch("train", at)[1]
    assert not ours.equal(theirs)
    assert ours.sort().values.equal(theirs.sort().values)


# -- the order of an epoch ---------------------------------------------------------------------


def test_every_epoch_has_the_same_number_of_batches_of_similar_lengths():
    lengths = np.random.default_rng(0).integers(4, 128, 5003)
    one, again, other = (bucketed(lengths, 16, generator(s, "data")) for s in (0, 0, 1))
    assert same(one, again)
    assert not same(one, other)
    assert len(one) == len(other) == 5003 // 16
    places = torch.cat(one)
    assert len(places.unique()) == len(places) == 5003 // 16 * 16
    padded = sum(lengths[b].max() * len(b) for b in one)
    plain = sum(lengths[b].max() * 16 for b in torch.randperm(5003)[:4992].split(16))
    assert padded < 1.08 * lengths[places].sum() < 0.7 * plain
    means = np.array([lengths[b].mean() for b in one])
    assert abs(np.corrcoef(means[:-1], means[1:])[0, 1]) < 0.2, "short batches do not come first"


def test_a_batch_larger_than_the_data_is_all_of_it():
    (whole,) = bucketed(np.arange(5) + 1, 9, generator(0, "data"))
    assert whole.sort().values.tolist() == [0, 1, 2, 3, 4]


def test_chunks_of_an_evaluation_are_few_and_bounded():
    lengths = np.array([3, 9, 1, 4, 8, 200])
    found = [chunk.tolist() for chunk in chunks(lengths, 20)]
    assert found == [[5], [1, 4], [3, 0, 2]]


# -- splits ----------------------------------------------------------------------------------


def rows(labels, seed="carve"):
    return Rows(sentences(len(labels), seed), None, np.array(labels), "here.tsv")


def test_a_dev_split_is_a_tenth_in_proportion_and_always_the_same():
    whole = rows([0] * 60 + [1] * 40)
    train, validation = carve(whole)
    assert (len(train), len(validation)) == (90, 10)
    assert validation.labels.sum() == 4
    assert set(train.texts).isdisjoint(validation.texts)
    assert carve(whole)[1].texts == validation.texts
    assert len(carve(rows([0, 1] * 60), most=5)[1]) == 5
    assert len(carve(rows(np.linspace(0, 5, 30)))[1]) == 3
    with pytest.raises(DataError, match=r"here.tsv: 9 train rows; expected 10 or more"):
        carve(rows([0] * 9))


def test_a_text_of_two_splits_stays_in_the_later_one():
    parts = apart(
        Rows(["a", "b", "c", "c"], ["x"] * 4, np.arange(4)),
        Rows(["b", "d"], ["x", "x"], np.arange(2)),
        Rows(["c", "d", "a"], ["x", "x", "y"], np.arange(3)),
    )
    assert parts["train"].texts == ["a"], "another pair is another example"
    assert parts["validation"].texts == ["b"]
    assert parts["train"].labels.tolist() == [0]


# -- fingerprints and the cache ----------------------------------------------------------------


def test_a_fingerprint_follows_texts_labels_tokenizer_and_length(task):
    plain = TinyText("tiny")
    assert plain.fingerprint() == TinyText("other").fingerprint()
    assert plain.fingerprint() != TinyValue("tiny").fingerprint() != task.fingerprint()
    assert task.fingerprint() == plain.bound(tiny_tokenizer(), LENGTH).fingerprint()
    other = tiny_tokenizer()
    other.add_tokens(["zebra"])
    left = tiny_tokenizer()
    left.padding_side = "left"
    found = [plain.bound(t, n).fingerprint() for t, n in ((other, LENGTH), (left, LENGTH))]
    found += [plain.bound(tiny_tokenizer(), 20).fingerprint(), task.fingerprint()]
    assert len({*found, plain.fingerprint()}) == 5


def test_a_tokenizers_fingerprint_forgets_what_it_was_last_asked(tmp_path):
    tokenizer = tiny_tokenizer()
    before = encoding.fingerprint_of(tokenizer)
    tokenizer("a cat", truncation=True, max_length=4, padding="max_length")
    assert encoding.fingerprint_of(tokenizer) == before
    tokenizer.save_pretrained(tmp_path)
    from transformers import AutoTokenizer

    assert encoding.fingerprint_of(AutoTokenizer.from_pretrained(tmp_path)) == before


def counted(monkeypatch):
    calls = []
    plain = encoding.encode

    def encode(*args):
        calls.append(args)
        return plain(*args)

    monkeypatch.setattr(encoding, "encode", encode)
    return calls


def fresh():
    return TinyText("tiny").bound(tiny_tokenizer(), LENGTH).encoded("train")


def test_texts_are_tokenised_once_and_read_from_disk_after(cache, monkeypatch):
    calls = counted(monkeypatch)
    first, again = fresh(), fresh()
    assert len(calls) == 1
    assert first.arrays().keys() == again.arrays().keys()
    assert all((a == again.arrays()[n]).all() for n, a in first.arrays().items())
    assert len(list(cache.iterdir())) == 1, "no half-written file is left"
    TinyText("tiny").bound(tiny_tokenizer(), 20).encoded("train")
    assert len(calls) == 2


@pytest.mark.parametrize("damage", ["cut", "flipped", "empty", "foreign"])
def test_a_damaged_file_is_made_again(damage, cache, monkeypatch):
    first = fresh()
    (path,) = cache.iterdir()
    data = bytearray(path.read_bytes())
    if damage == "flipped":
        data[-5] ^= 1
    foreign = json.dumps({"__metadata__": {}}).encode()
    path.write_bytes(
        {
            "cut": data[:-40],
            "flipped": data,
            "empty": b"",
            "foreign": len(foreign).to_bytes(8, "little") + foreign,
        }[damage]
    )
    calls = counted(monkeypatch)
    assert (fresh().ids == first.ids).all()
    assert len(calls) == 1
    fresh()
    assert len(calls) == 1, "the file is whole again"


def test_a_cache_that_cannot_be_written_is_no_error(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("LTH_ZOO_CACHE", str(tmp_path / "file"))
    assert len(fresh()) == 180


def test_what_a_task_derives_is_kept_with_the_tokens(cache):
    made = encoding.ragged([[1, 2], [3]], extra={"starts": np.array([[0, 1], [2, 3]])})
    kept = [encoding.cached("key", lambda: made), encoding.cached("key", lambda: 1 / 0)]
    assert all((k.extra["starts"] == made.extra["starts"]).all() for k in kept)
    assert kept[1].types is None


# -- losses, metrics, flags ---------------------------------------------------------------------


@pytest.mark.parametrize("kind", [TinyText, TinyValue])
def test_an_evaluation_equals_one_text_at_a_time(kind):
    task = kind("tiny").bound(tiny_tokenizer(), LENGTH)
    network = model(task).eval()
    found = task.evaluate(network, "test")
    rows = [task.batch("test", torch.tensor([i])) for i in range(task.size("test"))]
    with torch.no_grad():
        logits = torch.cat([network(**inputs).logits for inputs, _ in rows])
    labels = torch.cat([y for _, y in rows])
    if task.answer == "value":
        expected = F.mse_loss(logits[:, 0], labels).item()
        answers = np.corrcoef(logits[:, 0], labels)[0, 1] * 100
    else:
        expected = F.cross_entropy(logits, labels).item()
        answers = (logits.argmax(1) == labels).float().mean().item() * 100
        assert 0 < answers < 100
    assert found["loss"] == pytest.approx(expected, rel=1e-5)
    assert found[task.headline] == pytest.approx(answers, rel=1e-3)
    assert set(found) == {*task.measures, "loss"}


def test_training_lowers_the_loss_and_finds_the_word(task):
    network = model(task, spread=0.02)
    optimizer = torch.optim.AdamW(network.parameters(), 3e-3)
    (objective,) = task.objectives(network)
    at = torch.arange(32)
    losses = []
    for _ in range(60):
        loss = objective.loss(network.eval(), task.batch("train", at), generator(0, "noise"))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.2 * losses[0]


@pytest.mark.parametrize("kind", [TinyText, TinyValue])
def test_a_constant_predictor_scores_no_correlation_and_is_flagged(kind):
    task = kind("tiny").bound(tiny_tokenizer(), LENGTH)
    network = model(task)
    with torch.no_grad():
        network.classifier.weight.zero_()
    found = task.evaluate(network, "test")
    assert task.flags(network) == ("constant",)
    assert all(np.isfinite(list(found.values())))
    if task.answer == "value":
        assert found["pearson"] == found["spearman"] == 0.0
    assert task.flags(model(task)) == ()


def test_the_loss_of_half_precision_answers_is_taken_in_full(task):
    network = model(task)
    with torch.autocast("cpu", torch.bfloat16):
        loss = task.loss(network, task.batch("train", torch.arange(4)), generator(0, "noise"))
    assert loss.dtype == torch.float32


def test_metrics_by_hand():
    predicted, labels = np.array([1, 1, 0, 0, 1]), np.array([1, 0, 0, 1, 1])
    assert metrics.accuracy(predicted, labels) == pytest.approx(60)
    assert metrics.f1(predicted, labels) == pytest.approx(100 * 2 / 3)
    # (tp tn - fp fn) / sqrt of the four margins: (2 x 1 - 1 x 1) / sqrt(3 x 3 x 2 x 2)
    assert metrics.matthews(predicted, labels) == pytest.approx(100 / 6)
    line = np.array([1.0, 2.0, 3.0, 4.0], np.float32)
    assert metrics.pearson(line, 2 * line + 1) == pytest.approx(100)
    assert metrics.spearman(line**3, -line) == pytest.approx(-100)
    assert metrics.pearson(line**3, line) < 99 < metrics.spearman(line**3, line)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    "answers", [np.full(4, 0.7), 3 + 1e-8 * np.arange(4), np.array([np.nan, 1, 2, 3])]
)
def test_correlations_with_a_constant_are_nought(answers):
    labels = np.array([1.0, 2.0, 3.0, 5.0])
    assert metrics.constant(answers)
    assert metrics.pearson(answers, labels) == metrics.spearman(answers, labels) == 0.0
    assert metrics.pearson(labels, np.ones(4)) == 0.0
    ones = np.ones(4, np.int64)
    assert metrics.matthews(ones, np.array([1, 0, 1, 0])) == 0.0
    assert metrics.f1(0 * ones, 0 * ones) == 0.0


def test_an_evaluation_leaves_the_model_as_it_was(task):
    network = model(task).train()
    before, drawn = copy.deepcopy(network.state_dict()), torch.get_rng_state()
    assert task.evaluate(network, "validation") == task.evaluate(network, "validation")
    assert network.training
    assert same(before, dict(network.state_dict()))
    assert torch.get_rng_state().equal(drawn)
