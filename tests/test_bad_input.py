"""Bad input: exit code 2 and one line that names the value, before any work."""

from __future__ import annotations

import gzip
import json

import pytest
import tiny
import torch
from image_files import GREY, arrays, nowhere_else, write_idx  # noqa: F401

from lth_zoo.errors import BadInput
from lth_zoo.finders import IMP, OneShot
from lth_zoo.masks import Masks
from lth_zoo.recipe import Recipe, Training
from lth_zoo.ticket import Ticket

QUICK = ("find", "quick")

#: Arguments -> words of the one line.
WRONG = {
    # names
    "command": (["fnid"], ["'fnid'", "'find'"]),
    "recipe": (["find", "qick"], ["'qick'", "'quick'"]),
    "recipe file": (["find", "mine.yaml"], ["'mine.yaml' does not exist"]),
    "model": ([*QUICK, "--model", "lenet-300"], ["'lenet-300'", "'lenet-300-100'"]),
    "width of a model": ([*QUICK, "--model", "resnet-20x"], ["'resnet-20x'", "'resnet-20'"]),
    "module": ([*QUICK, "--model", "nowhere:net"], ["nowhere:net", "No module named"]),
    "task": ([*QUICK, "--task", "digit"], ["'digit'", "'digits'"]),
    "finder": ([*QUICK, "--finder", "im"], ["'im'", "'imp'"]),
    "score": ([*QUICK, "--finder.score", "magnitud"], ["'magnitud'", "'magnitude'"]),
    "control": ([*QUICK, "--controls", "re-init"], ["'re-init'", "'reinit'"]),
    "excluded layer": ([*QUICK, "--exclude", "fc4"], ["'fc4'", "'fc3'"]),
    "layer with a rate": ([*QUICK, "--finder.rates", "fc=0.1"], ["'fc'", "'fc1'"]),
    "flag": ([*QUICK, "--sparsty", "0.5"], ["--sparsty", "--sparsity"]),
    "flag of another finder": (
        [*QUICK, "--finder", "one-shot", "--finder.rate", "0.3"],
        ["--finder.rate", "0.3"],
    ),
    "optimiser": ([*QUICK, "--training.optimizer", "lion"], ["'lion'", "'adam'"]),
    "tracker": ([*QUICK, "--track", "tensorbord"], ["'tensorbord'", "'tensorboard'"]),
    "kind of list": (["ls", "model"], ["'model'", "'models'"]),
    "thing to show": (["show", "lenet-6"], ["'lenet-6'", "'lenet-5'"]),
    "run": (["report", "quick-01234567"], ["quick-01234567"]),
    "shell": (["completion", "fish"], ["'fish'", "'bash'"]),
    "action": (["store", "clean"], ["'clean'", "'gc'"]),
    "form": (["export", "t", "--format", "onnx"], ["'onnx'", "safetensors"]),
    # values
    "sparsity 1": ([*QUICK, "--sparsity", "1"], ["sparsity is 1.0", "below 1"]),
    "sparsity below 0": ([*QUICK, "--sparsity", "-0.1"], ["sparsity is -0.1", "at least 0"]),
    "sparsity no number": ([*QUICK, "--sparsity", "nan"], ["sparsity is nan"]),
    "sparsity in words": ([*QUICK, "--sparsity", "half"], ["--sparsity", "'half'"]),
    "rate": ([*QUICK, "--finder.rate", "1.5"], ["rate is 1.5", "between 0 and 1"]),
    "rate of a layer": ([*QUICK, "--finder.rates", "fc3=2"], ["'fc3=2'", "layer=rate"]),
    "rate that divides by 0": ([*QUICK, "--finder.rates", "fc3=1/0"], ["'fc3=1/0'"]),
    "levels": ([*QUICK, "--finder.levels", "0"], ["levels is 0", "at least 1"]),
    "rewind in words": ([*QUICK, "--finder.rewind", "early"], ["'early'", "step=K"]),
    "rewind past the end": ([*QUICK, "--finder.rewind", "step=601"], ["'step=601'", "600"]),
    "rewind of one shot": (
        [*QUICK, "--finder", "one-shot", "--finder.rewind", "101%"],
        ["'101%'"],
    ),
    "seeds twice": ([*QUICK, "--seeds", "1", "2", "1"], ["seeds are [1, 2, 1]", "each once"]),
    "no seeds": ([*QUICK, "--seeds"], ["seeds are []", "at least one"]),
    "seed in words": ([*QUICK, "--seeds", "one"], ["'one'"]),
    "controls twice": ([*QUICK, "--controls", "reinit", "reinit"], ["reinit", "once"]),
    "iterations": ([*QUICK, "--training.iterations", "0"], ["iterations is 0", "at least 1"]),
    "batch size": ([*QUICK, "--training.batch-size", "-5"], ["batch_size is -5"]),
    "learning rate": ([*QUICK, "--training.learning-rate", "0"], ["learning_rate is 0", "above 0"]),
    "learning rate nan": ([*QUICK, "--training.learning-rate", "nan"], ["learning_rate is nan"]),
    "average": ([*QUICK, "--training.average", "1"], ["average is 1.0"]),
    "milestones": ([*QUICK, "--training.milestones", "1.5"], ["1.5"]),
    "precision": ([*QUICK, "--training.precision", "fp16"], ["fp16 needs a GPU"]),
    "workers": ([*QUICK, "--workers", "-1"], ["workers is -1", "0 (this process) or more"]),
    "device": ([*QUICK, "--device", "tpu"], ["'tpu'", "cpu"]),
    "data folder": ([*QUICK, "--data", "no-data"], ["'no-data' does not exist"]),
    "everything excluded": (
        [*QUICK, "--exclude", "fc1", "fc2", "fc3"],
        ["every prunable layer is excluded"],
    ),
    "momentum of Adam": (
        [*QUICK, "--training.momentum", "0.9"],
        ["momentum is 0.9", "'adam' has none", "sgd or rmsprop"],
    ),
    "nesterov": (
        [*QUICK, "--training.optimizer", "sgd", "--training.nesterov"],
        ["nesterov is True", "momentum above 0"],
    ),
    "milestones of a cosine": (
        [*QUICK, "--training.schedule", "cosine", "--training.milestones", "9"],
        ["milestones are [9]", "'cosine'", "'step'"],
    ),
    "warm-up": ([*QUICK, "--training.warmup", "-1"], ["warmup is -1", "at least 0"]),
    "momentum": ([*QUICK, "--training.momentum", "-0.1"], ["momentum is -0.1", "at least 0"]),
    "weight decay": ([*QUICK, "--training.weight-decay", "nan"], ["weight_decay is nan"]),
    "clip norm": ([*QUICK, "--training.clip-norm", "0"], ["clip_norm is 0.0", "above 0"]),
    # places
    "grid": (["study", "grid.yaml"], ["'grid.yaml' does not exist"]),
    "no grid": (["study"], ["The YAML file. (required)"]),
    "ticket": (["export", "no/ticket"], ["'no/ticket' is neither a ticket folder nor"]),
    "ticket to verify": (["verify", "no/ticket"], ["'no/ticket'"]),
    "no ticket": (["verify"], ["at least one ticket"]),
    "plan": (["plan", "quick", "--task", "digit"], ["'digit'", "'digits'"]),
    "empty store": (["report"], ["no finished run"]),
    "import": (["import", "no.pt"], ["'no.pt' does not exist"]),
}


def refused(capsys, *args) -> str:
    """Run a command that must be refused; return its one line."""
    answer = tiny.cli(capsys, *args)
    assert answer.code == 2, answer
    assert answer.out == ""
    (line,) = answer.err.splitlines()
    assert line.startswith("lth-zoo: ")
    return line


@pytest.fixture
def place(nowhere_else, tmp_path, monkeypatch):  # noqa: F811
    """An empty current folder, which must stay so, and no data but the embedded."""
    monkeypatch.setenv("LTH_ZOO_STORE", str(tmp_path / "the-store"))
    yield tmp_path
    assert not (tmp_path / "the-store").exists()


@pytest.mark.parametrize("what", WRONG)
def test_what_is_wrong_is_said_in_one_line(place, capsys, what):
    args, words = WRONG[what]
    line = refused(capsys, *args)
    assert [word for word in words if word not in line] == []
    assert not list(place.iterdir())


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Training(schedule="cosin"), ["training.schedule 'cosin'", "'cosine'"]),
        (lambda: Training(precision="fp8"), ["training.precision 'fp8'", "bf16"]),
        (lambda: Training(optimizer="adan"), ["training.optimizer 'adan'", "'adam'"]),
        (lambda: Recipe(compare="pared"), ["compare 'pared'", "'paired'"]),
        (lambda: Recipe(controls_at="first"), ["controls_at 'first'", "all, last"]),
        (lambda: Recipe(finder=IMP(of="all")), ["finder.of 'all'", "original, remaining"]),
        (lambda: Recipe(finder=OneShot(after="trainin")), ["finder.after", "'training'"]),
        (lambda: Recipe.from_dict({"finder": {"scope": "globl"}}), ["finder.scope", "'global'"]),
    ],
)
def test_a_choice_is_checked_from_python_too(make, words):
    with pytest.raises(BadInput) as caught:
        make()
    assert [word for word in words if word not in str(caught.value)] == []


def test_a_grid_takes_no_flags_of_a_recipe(capsys, tmp_path):
    (tmp_path / "grid.yaml").write_text("base: quick\ngrid: {sparsity: [0.5]}\n")
    store = ("--store", tmp_path / "s")
    assert "--sparsity" in refused(
        capsys, "plan", tmp_path / "grid.yaml", "--sparsity", "0.9", *store
    )
    assert tiny.cli(capsys, "plan", tmp_path / "grid.yaml", *store).code == 0


def test_a_gpu_that_is_not_there(place, capsys):
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    assert "'cuda' is not available; this machine has: cpu" in refused(
        capsys, *QUICK, "--device", "cuda"
    )


YAML = {
    "unknown key": ("sparsty: 0.5", ["--sparsty", "--sparsity"]),
    "unknown nested key": ("training: {iteration: 5}", ["--training.iteration"]),
    "wrong type": ("sparsity: high", ["'high'"]),
    "wrong nested type": ("training: {iterations: many}", ["'many'"]),
    "a mapping for a number": ("sparsity: {a: 1}", ["--sparsity.a"]),
    "no YAML": ("a: [1", ["not valid YAML", "line 1"]),
    "no mapping": ("- 1\n- 2", ["holds no mapping"]),
    "unknown finder": ("finder: {name: imp2}", ["'imp2'", "'imp'"]),
    "its own base": ("base: mine.yaml", ["is its own base"]),
}


@pytest.mark.parametrize("what", YAML)
@pytest.mark.parametrize("command", ["find", "plan", "show"])
def test_a_recipe_file_that_is_wrong(place, capsys, what, command):
    text, words = YAML[what]
    (place / "mine.yaml").write_text(text)
    line = refused(capsys, command, "mine.yaml")
    assert [word for word in words if word not in line] == []
    assert "mine.yaml" in line or what == "unknown finder"


GRIDS = {
    "no grid in it": ("base: quick", ["must hold `grid`"]),
    "another key": ("grid: {sparsity: [0.5]}\nmodels: [a]", ["`base` only"]),
    "a field that is none": ("grid: {sparsty: [0.5]}", ["--sparsty", "sparsty=0.5"]),
    "a value of the wrong type": ("grid: {sparsity: [0.5, much]}", ["sparsity=much"]),
    "no values": ("grid: {sparsity: []}", ["'sparsity' has no values"]),
    "a task that is none": ("grid: {task: [digits, digts]}", ["'digts'", "'digits'"]),
    "a base that is none": ("base: quik\ngrid: {sparsity: [0.5]}", ["'quik'", "'quick'"]),
    "a finder's flag in another": (
        "grid: {finder.name: [imp, one-shot], finder.rate: [0.2]}",
        ["finder.name=one-shot", "--finder.rate"],
    ),
}


@pytest.mark.parametrize("what", GRIDS)
def test_a_grid_that_is_wrong(place, capsys, what):
    text, words = GRIDS[what]
    (place / "grid.yaml").write_text(text)
    line = refused(capsys, "study", "grid.yaml")
    assert [word for word in words if word not in line] == []


# -- data ----------------------------------------------------------------------------------


def damaged(folder, part: str, change) -> None:
    """Write MNIST's files, small, and change the bytes of one."""
    write_idx(folder / "mnist", arrays(GREY))
    path = next((folder / "mnist").glob(f"{part}*"))
    path.write_bytes(change(path.read_bytes()))


def recompressed(change):
    return lambda data: gzip.compress(change(gzip.decompress(data)))


DATA = {
    "wrong magic number": ("train-images", recompressed(lambda d: b"\x00\x00\x09\x03" + d[4:])),
    "truncated gz": ("train-images", lambda d: d[: len(d) // 2]),
    "truncated inside": ("t10k-labels", recompressed(lambda d: d[:-1])),
    "no gz at all": ("t10k-images", lambda d: b"<html>not found</html>"),
    "labels out of range": ("train-labels", recompressed(lambda d: d[:-1] + b"\x0a")),
    "empty": ("train-labels", lambda d: b""),
}


@pytest.mark.parametrize("what", DATA)
def test_data_that_is_damaged_names_the_file(place, capsys, what, monkeypatch):
    from image_files import SmallMNIST

    monkeypatch.setattr("lth_zoo.tasks.vision.MNIST", SmallMNIST)
    part, change = DATA[what]
    damaged(place / "data", part, lambda data: data)
    args = ["find", "lenet-mnist-short", "--data", "data", "--seeds", "0"]
    assert tiny.cli(capsys, "plan", *args[1:]).code == 0, "undamaged it is refused too"
    damaged(place / "data", part, change)
    line = refused(capsys, *args)
    assert "mnist" in line
    if "range" in what:
        assert "10" in line
    else:
        assert part in line


def test_data_that_is_missing_says_where_it_was_looked_for(place, capsys):
    (place / "data").mkdir()
    line = refused(capsys, "find", "lenet-mnist", "--data", "data")
    assert "mnist" in line
    assert "data" in line
    assert "LTH_ZOO_DATA" in line or "--data" in line


# -- tickets -------------------------------------------------------------------------------


@pytest.fixture
def ticket(place):
    masks = {"w": torch.tensor([[True, False], [True, False]])}
    return Ticket(Masks(masks), {"w": torch.ones(2, 2)}).save_pretrained(place / "ticket")


TICKETS = {
    "flipped byte": lambda t: flip(t / "state.safetensors"),
    "missing file": lambda t: (t / "masks.safetensors").unlink(),
    "newer schema": lambda t: t.joinpath("ticket.json").write_text(
        (t / "ticket.json").read_text().replace('"schema": 1', '"schema": 9')
    ),
}


def flip(path):
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize("what", TICKETS)
@pytest.mark.parametrize("command", ["export", "show", "verify", "find"])
def test_a_ticket_that_is_damaged(ticket, capsys, command, what):
    TICKETS[what](ticket)
    assert "ticket" in refused(capsys, command, "ticket")


def test_a_ticket_without_a_recipe_cannot_be_verified(ticket, capsys):
    assert "carries no recipe" in refused(capsys, "verify", "ticket")


def test_a_sparsity_below_the_tickets(place, capsys, tmp_path):
    recipe = tiny.recipe(seeds=(0,), controls=(), sparsity=0.5).to_dict()
    mask = torch.arange(8).reshape(2, 4) < 4
    meta = {"recipe": json.loads(json.dumps(recipe)), "level": 1}
    Ticket(Masks({"w": mask}), {"w": torch.ones(2, 4)}, meta).save_pretrained(place / "t")
    line = refused(capsys, "find", "t", "--sparsity", "0.4")
    assert "sparsity 0.4 is below the ticket's, 0.5000" in line


def test_a_place_for_tickets_that_is_taken_is_said_before_the_search(place, capsys):
    (place / "file").touch()
    assert "is a file" in refused(capsys, *QUICK, "--out", "file")
    assert "is a file" in refused(capsys, *QUICK, "--out", "file/deeper")
    (place / "out" / "seed-1").mkdir(parents=True)
    (place / "out" / "seed-1" / "thesis").touch()
    assert "holds other files" in refused(capsys, *QUICK, "--out", "out")
