"""Studies: the contract of all that are registered, and the one of noise by hand."""

from __future__ import annotations

import json

import pytest
import tiny
import torch
from contract_table import TABLE
from toys import HERE, tiny_recipe

import lth_zoo
from lth_zoo import registry
from lth_zoo.engines.local import run
from lth_zoo.errors import BadInput
from lth_zoo.probes.noise import shifted
from lth_zoo.report.figures import Picture
from lth_zoo.session import read_state
from lth_zoo.store import Store
from lth_zoo.studies.noise import Noise
from lth_zoo.studies.run import run_study
from lth_zoo.studies.shared import searched, tickets_at

ROWS = [(name, *row) for name, rows in TABLE["studies"].items() for row in rows]


@pytest.mark.parametrize(("name", "study", "fields"), ROWS, ids=[row[0] for row in ROWS])
def test_a_study_answers_draws_and_is_not_run_twice(name, study, fields, tmp_path):
    recipe, store = tiny_recipe(**{"seeds": (0, 1)} | fields), Store(tmp_path / "store")
    found = run_study(study, recipe, store, HERE)
    assert not found.outcome.failed
    assert found.answer is not None
    assert found.page is not None
    assert found.answer.findings
    assert any(isinstance(block, Picture) for block in found.answer.blocks)
    data = json.loads((found.page.parent / "report.json").read_text())["studies"][0]
    assert data["study"]["study"] == name
    for figure in data["figures"]:
        assert (found.page.parent / figure).stat().st_size > 1000
    again = run_study(study, recipe, store, HERE)
    assert (again.outcome.done, again.id) == (0, found.id)
    assert again.answer is not None
    assert again.answer.findings == found.answer.findings


def test_studies_are_listed_and_asked_by_name(capsys, tmp_path):
    assert "noise" in [row["name"] for row in tiny.cli(capsys, "ls", "studies", "--json").json]
    settings = ("--study.sigmas", "0", "--training.iterations", 4, "--workers", 0, "--seeds", 0)
    where = ("--store", tmp_path / "s", "--out", tmp_path / "page", "--json")
    answer = tiny.cli(capsys, "study", "noise", "--sparsity", 0.5, *settings, *where).json
    assert answer["settings"]["sigmas"] == [0.0]
    assert (tmp_path / "page" / "index.html").is_file()
    wrong = tiny.cli(capsys, "study", "nois")
    assert wrong.code == 2
    assert "study 'nois'" in wrong.err
    assert "noise" in wrong.err


def test_the_python_function_takes_settings_and_names_what_does_not_exist(tmp_path):
    with pytest.raises(BadInput, match=r"sigma.*Noise|Noise.*sigma"):
        lth_zoo.study("noise", tiny_recipe(), store=tmp_path, sigma=1.0)


# -- noise --------------------------------------------------------------------------------------


def test_no_noise_changes_nothing_and_trains_to_the_ticket(tmp_path):
    recipe, store = tiny_recipe(sparsity=0.5), Store(tmp_path)
    study = Noise(sigmas=(0.0,), signs=("free",))
    probes = study.lay_out(recipe, None)
    run([probe.job for probe in probes], store, HERE)
    jobs = {(p.of["arm"], p.of.get("what", "")): p.job for p in probes}
    found = {key: store.entry(job).json() for key, job in jobs.items()}
    assert found["noise", "noise"]["flipped"] == 0
    assert found["noise", "training"]["metrics"] == found["ticket", ""]["metrics"]
    assert found["reinit", ""]["metrics"] != found["ticket", ""]["metrics"]


def test_noise_is_on_kept_weights_alone_and_of_the_layers_own_size(tmp_path):
    recipe, store = tiny_recipe(sparsity=0.5, model="lenet-300-100"), Store(tmp_path)
    study = Noise(sigmas=(2.0,), signs=("free",))
    (noise,) = (p.job for p in study.lay_out(recipe, None) if p.of.get("what") == "noise")
    run([noise, noise.inputs["masks"], noise.inputs["init"]], store, HERE)
    before = read_state(store.entry(noise.inputs["init"])).state
    after = read_state(store.entry(noise)).state
    from lth_zoo.formats import load_masks

    masks = load_masks(store.entry(noise.inputs["masks"]).read("masks.safetensors"))
    for name, tensor in before.items():
        if name not in masks:
            assert tensor.equal(after[name])
            continue
        mask = masks[name]
        assert tensor[~mask].equal(after[name][~mask])
        if mask.sum() > 1000:
            spread = (after[name] - tensor)[mask].std() / tensor.std()
            assert abs(spread - 2) < 0.1


def test_kept_signs_are_kept_and_free_ones_flip_as_often_as_worked_out():
    rng = torch.Generator().manual_seed(0)
    values = torch.randn(40_000, generator=rng)
    kept = shifted(values, 3.0, rng, keep_signs=True)
    assert kept.sign().equal(values.sign())
    assert (kept - values).abs().mean() > 1
    zeros = torch.tensor([0.0, -1.0, 0.0, 1e-30])
    assert shifted(zeros, 3.0, rng, keep_signs=True).sign().equal(zeros.sign())
    flips = (shifted(values, 1.0, rng, keep_signs=False).sign() != values.sign()).float().mean()
    assert abs(flips - 0.25) < 0.01  # arctan(1) / pi


def test_what_cannot_be_is_said_before_anything_runs():
    with pytest.raises(BadInput, match=r"sigmas holds -1"):
        Noise(sigmas=(-1.0,))
    with pytest.raises(BadInput, match=r"signs 'keep'.*kept"):
        Noise(signs=("keep",))  # type: ignore[arg-type]
    with pytest.raises(BadInput, match=r"no ticket"):
        Noise().lay_out(tiny_recipe(sparsity=0.0), None)
    with pytest.raises(BadInput, match=r"level 9 is not searched; levels are 1 to 4"):
        tickets_at(searched(tiny_recipe(sparsity=0.5), None), [9])
    assert registry.singular("studies") == "study"


# -- compare ------------------------------------------------------------------------------------


def test_a_comparison_of_finders_that_rewind_has_a_dense_run_and_says_what_was_left_out(tmp_path):
    from lth_zoo.studies.compare import Compare

    recipe = tiny_recipe(sparsity=0.5)
    found = run_study(Compare(finders=("cts",)), recipe, Store(tmp_path), HERE)
    assert found.answer.data["dense"].keys() == {0}
    whole = Compare().lay_out(recipe, None)
    (dense,) = (probe for probe in whole if probe.of["finder"] == "dense")
    assert dense.job.config["begin"] == 0
    assert "graph" in dense.of["left_out"]["ugs"]
