"""Every finder of the catalogue on a small residual network with batch norm, from end to end."""

from __future__ import annotations

from typing import Any

import pytest
from toys import HERE, tiny_recipe

from lth_zoo import registry
from lth_zoo.engines.local import run
from lth_zoo.errors import BadInput
from lth_zoo.experiment import experiment
from lth_zoo.formats import load_masks
from lth_zoo.session import MASKS, RESULT
from lth_zoo.store import Store

#: Finders that a network on images does not suit, and a word of why.
OTHERS = {
    **dict.fromkeys(("dual-graph", "fast-glt", "graph-early-bird", "graph-imp"), "graph"),
    **dict.fromkeys(("icpg", "ugs", "wd-glt"), "graph"),
    **{"gan-imp": "generator", "moment-matching": "generator", "structured": "units"},
}
#: What a search of a dozen iterations needs to be long enough.
SETTINGS: dict[str, dict[str, Any]] = {
    **{name: {"rate": 0.5} for name in ("fine-tune", "imp", "lrr")},
    **{name: {"rounds": 3} for name in ("force", "peek-a-boo", "synflow")},
    "aws": {"rate": 0.5, "warm_up": "2", "each": "2"},
    "elastic": {"source": "resnet-14x0.25", "rate": 0.5},
    "gem-miner": {"period": 1},
    "instant-soup": {"main": "1", "clone": "1", "clones": 2, "rounds": 1},
    "set": {"every": "2"},
}

#: Gem-Miner counts in epochs: two of three iterations.
BATCH = {"gem-miner": {"batch_size": 400}}


@pytest.mark.parametrize("name", sorted(set(registry.names("finders")) - OTHERS.keys()))
def test_a_finder_finds_a_ticket_of_a_network_with_batch_norm(name, tmp_path):
    finder = registry.find("finders", name)(**SETTINGS.get(name, {}))
    fields = {"model": "resnet-8x0.25", "finder": finder, "sparsity": 0.5}
    training = {"iterations": 6, "evaluate_every": 6} | BATCH.get(name, {"batch_size": 60})
    one, store = experiment(tiny_recipe(**fields, training=training)), Store(tmp_path)
    outcome = run(one.goals, store, HERE)
    assert not outcome.failed
    (ticket,) = one.tickets()
    masks = load_masks(store.entry(ticket.level.masks).read(MASKS))
    assert 0.4 < masks.density < 0.6
    assert "test" in store.entry(ticket.goal).json(RESULT)["metrics"]


@pytest.mark.parametrize(("name", "word"), sorted(OTHERS.items()))
def test_a_finder_that_has_no_meaning_there_says_why(name, word):
    finder = registry.find("finders", name)()
    with pytest.raises(BadInput, match=word):
        experiment(tiny_recipe(model="lenet-300-100x0.1", finder=finder, sparsity=0.5))
