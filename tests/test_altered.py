"""Parts of the data and of the model: `data_fraction` and `only`."""

from __future__ import annotations

import pytest
import torch
from tiny import recipe, run_tiny
from toys import Blobs

from lth_zoo.altered import portion
from lth_zoo.coverage import covered_by
from lth_zoo.errors import BadInput
from lth_zoo.experiment import experiment
from lth_zoo.protocols import adapter_of, task_of
from lth_zoo.seeds import generator


def test_a_portion_is_a_fixed_subset_of_the_training_part() -> None:
    whole = Blobs()
    small, less = portion(whole, 0.5), portion(whole, 0.25)
    assert (small.size("train"), less.size("train"), small.size("test")) == (20, 10, 10)
    rows = {tuple(x.tolist()) for x in whole.batch("train", torch.arange(40))[0]}
    held, fewer = (
        {tuple(x.tolist()) for x in t.batch("train", torch.arange(t.size("train")))[0]}
        for t in (small, less)
    )
    assert fewer < held < rows
    assert small.batch("test", torch.arange(3))[0].equal(whole.batch("test", torch.arange(3))[0])
    dealt = torch.cat(list(small.epoch(5, generator(0, "data", 0))))
    assert sorted(dealt.tolist()) == list(range(20))
    assert whole.size("train") == 40
    assert portion(whole, 1.0) is whole


@pytest.mark.parametrize("name", ["karate", "digits-knn"])
def test_a_graph_cannot_be_cut(name: str) -> None:
    with pytest.raises(BadInput, match="cannot be cut"):
        portion(task_of(name), 0.5)


def test_a_share_of_the_data_is_in_every_key(tmp_path) -> None:
    jobs = {job.key for job in experiment(recipe(seeds=(0,))).jobs}
    scarce = experiment(recipe(seeds=(0,), data_fraction=0.1)).jobs
    assert jobs.isdisjoint(job.key for job in scarce)
    assert all(job.config["data_fraction"] == 0.1 for job in scarce)
    assert not run_tiny(tmp_path, seeds=(0,), data_fraction=0.1).failed
    with pytest.raises(BadInput, match=r"data_fraction is 0; it must be in \(0, 1\]"):
        recipe(data_fraction=0)


ALL = {"exclude": (), "prune_first": True, "prune_last": True}


def test_only_parts_of_a_model_are_pruned() -> None:
    model = adapter_of("resnet-20x0.25").build("resnet-20x0.25", task_of("digits").signature)
    entries = adapter_of("resnet-20").prunable(model)
    parts = sorted({p.layer.split(".")[0] for p in entries.values()})
    covered = covered_by({**ALL, "only": (parts[0],)}, entries)
    assert 0 < len(covered) < len(entries)
    assert all(p.layer.split(".")[0] == parts[0] for p in covered.values())
    both = covered_by({**ALL, "only": tuple(parts)}, entries)
    assert list(both) == list(entries)


def test_an_unknown_part_is_named() -> None:
    with pytest.raises(BadInput, match="unknown part of the model 'genrator'; did you mean 'gen"):
        experiment(recipe(model="dcgan-4x0.02", task="generation/digits", only=("genrator",)))
    with pytest.raises(BadInput, match=r"unknown part of the model 'decoder'.* generator"):
        experiment(recipe(model="dcgan-4x0.02", task="generation/digits", only=("decoder",)))
