"""Names to objects, loaded only when asked for.

A row is ``name -> "module:object"``. Rows come from the table below, from entry points
(group ``lth_zoo.<kind>``) of other installed packages, and from :func:`register`. A name
that ends in ``/`` owns everything that starts with it: ``image/`` answers ``image/me/cats``.
An object whose ``variants`` is true answers its name with suffixes too: ``digits-knn@random-3``.
"""

from __future__ import annotations

import importlib
from functools import cache
from typing import Any

from .errors import BadInput, unknown

KINDS = ("adapters", "tasks", "finders", "scores", "controls", "studies")

_ROWS: dict[str, dict[str, Any]] = {
    "adapters": {
        "bert": "lth_zoo.adapters.bert:Bert",
        "cnn": "lth_zoo.adapters.cnn:CNN",
        "custom": "lth_zoo.adapters.custom:Custom",
        "generative": "lth_zoo.adapters.generative:Generative",
        "gnn": "lth_zoo.adapters.gnn:GNN",
        "planted": "lth_zoo.adapters.planted:PlantedNetworks",
    },
    "tasks": {
        "digits": "lth_zoo.tasks.embedded:Digits",
        "mnist": "lth_zoo.tasks.vision:MNIST",
        "fashion-mnist": "lth_zoo.tasks.vision:FashionMNIST",
        "cifar10": "lth_zoo.tasks.vision:CIFAR10",
        "cifar100": "lth_zoo.tasks.vision:CIFAR100",
        "cifar10-subset": "lth_zoo.tasks.vision:CIFAR10Subset",
        "image/": "lth_zoo.tasks.vision:HubImages",
        "generation/": "lth_zoo.tasks.generation:Generation",
        "mlm/": "lth_zoo.tasks.mlm:TextFiles",
        "pydocs/mlm": "lth_zoo.tasks.pydocs:PydocsMLM",
        "pydocs/order": "lth_zoo.tasks.pydocs:Order",
        "pydocs/shuffle": "lth_zoo.tasks.pydocs:Shuffle",
        "pydocs/topic": "lth_zoo.tasks.pydocs:Topic",
        "squad": "lth_zoo.tasks.squad:SQuAD",
        "squad-v2": "lth_zoo.tasks.squad:SQuAD2",
        "glue/cola": "lth_zoo.tasks.glue:CoLA",
        "glue/sst2": "lth_zoo.tasks.glue:SST2",
        "glue/mrpc": "lth_zoo.tasks.glue:MRPC",
        "glue/qqp": "lth_zoo.tasks.glue:QQP",
        "glue/stsb": "lth_zoo.tasks.glue:STSB",
        "glue/mnli": "lth_zoo.tasks.glue:MNLI",
        "glue/qnli": "lth_zoo.tasks.glue:QNLI",
        "glue/rte": "lth_zoo.tasks.glue:RTE",
        "glue/wnli": "lth_zoo.tasks.glue:WNLI",
        "text/": "lth_zoo.tasks.hub_text:HubText",
        "planetoid/cora": "lth_zoo.tasks.graphs:Cora",
        "planetoid/citeseer": "lth_zoo.tasks.graphs:CiteSeer",
        "planetoid/pubmed": "lth_zoo.tasks.graphs:PubMed",
        "amazon/photo": "lth_zoo.tasks.graphs:AmazonPhoto",
        "amazon/computers": "lth_zoo.tasks.graphs:AmazonComputers",
        "coauthor/cs": "lth_zoo.tasks.graphs:CoauthorCS",
        "coauthor/physics": "lth_zoo.tasks.graphs:CoauthorPhysics",
        "karate": "lth_zoo.tasks.graphs:KarateClub",
        "digits-knn": "lth_zoo.tasks.graphs:DigitsKNN",
        "ogbn-arxiv": "lth_zoo.tasks.graphs:OGBNArxiv",
        "pyg/": "lth_zoo.tasks.graphs:PyGNodes",
        "links/": "lth_zoo.tasks.graph_links:LinkPrediction",
        "tu/": "lth_zoo.tasks.graph_sets:TU",
        "planted/circle": "lth_zoo.tasks.planted:Circle",
        "planted/helix": "lth_zoo.tasks.planted:Helix",
        "planted/relu": "lth_zoo.tasks.planted:ReLU",
        "motifs": "lth_zoo.tasks.graph_sets:Motifs",
    },
    "finders": {
        "deep-r": "lth_zoo.finders.deep_r:DeepR",
        "gradual": "lth_zoo.finders.gradual:Gradual",
        "bernoulli-gates": "lth_zoo.finders.bernoulli_gates:BernoulliGates",
        "biprop": "lth_zoo.finders.biprop:Biprop",
        "edge-popup": "lth_zoo.finders.edge_popup:EdgePopup",
        "gem-miner": "lth_zoo.finders.gem_miner:GemMiner",
        "supermask": "lth_zoo.finders.supermask:Supermask",
        "imp": "lth_zoo.finders.imp:IMP",
        "elastic": "lth_zoo.finders.elastic:Elastic",
        "peek-a-boo": "lth_zoo.finders.peek_a_boo:PeekABoo",
        "rst": "lth_zoo.finders.rst:RST",
        "fine-tune": "lth_zoo.finders.fine_tune:FineTune",
        "lrr": "lth_zoo.finders.lrr:LRR",
        "mask-training": "lth_zoo.finders.mask_training:MaskTraining",
        "aws": "lth_zoo.finders.aws:AWS",
        "cts": "lth_zoo.finders.cts:CTS",
        "moment-matching": "lth_zoo.finders.moment_matching:MomentMatching",
        "movement": "lth_zoo.finders.movement:Movement",
        "one-shot": "lth_zoo.finders.one_shot:OneShot",
        "rigl": "lth_zoo.finders.rigl:RigL",
        "set": "lth_zoo.finders.set:SET",
        "snip": "lth_zoo.finders.snip:SNIP",
        "force": "lth_zoo.finders.force:FORCE",
        "grasp": "lth_zoo.finders.grasp:GraSP",
        "synflow": "lth_zoo.finders.synflow:SynFlow",
        "random-mask": "lth_zoo.finders.random_mask:RandomMask",
        "structured": "lth_zoo.finders.structured:Structured",
        "instant-soup": "lth_zoo.finders.soup:InstantSoup",
        "channel-early-bird": "lth_zoo.finders.channel_early_bird:ChannelEarlyBird",
        "early-bird": "lth_zoo.finders.early_bird:EarlyBird",
        "gan-imp": "lth_zoo.finders.gan_imp:GanIMP",
        "graph-imp": "lth_zoo.finders.graph_imp:GraphIMP",
        "graph-early-bird": "lth_zoo.finders.graph_early_bird:GraphEarlyBird",
        "ugs": "lth_zoo.finders.ugs:UGS",
        "wd-glt": "lth_zoo.finders.wd_glt:WDGLT",
        "fast-glt": "lth_zoo.finders.fast_glt:FastGLT",
        "icpg": "lth_zoo.finders.icpg:ICPG",
        "dual-graph": "lth_zoo.finders.dual_graph:DualGraph",
    },
    "scores": {
        "magnitude": "lth_zoo.scores:magnitude",
        "random": "lth_zoo.scores:random",
        "wanda": "lth_zoo.data_scores:wanda",
        "gradient": "lth_zoo.data_scores:gradient",
        "snip": "lth_zoo.saliency:snip",
        "grasp": "lth_zoo.saliency:grasp",
        "synflow": "lth_zoo.saliency:synflow",
        "large_final": "lth_zoo.scores:large_final",
        "small_final": "lth_zoo.scores:small_final",
        "large_init": "lth_zoo.scores:large_init",
        "movement": "lth_zoo.scores:movement",
        "magnitude_increase": "lth_zoo.scores:magnitude_increase",
        "large_final_same_sign": "lth_zoo.scores:large_final_same_sign",
        "path_length": "lth_zoo.scores:path_length",
        "sanh": "lth_zoo.scores:sanh",
        "early_movement_1": "lth_zoo.scores:early_movement_1",
        "early_movement_2": "lth_zoo.scores:early_movement_2",
        "early_movement_5": "lth_zoo.scores:early_movement_5",
        "early_movement_10": "lth_zoo.scores:early_movement_10",
    },
    "controls": {
        "reinit": "lth_zoo.controls:reinit",
        "shuffle": "lth_zoo.controls:shuffle",
        "shuffle-weights": "lth_zoo.controls:shuffle_weights",
        "random-global": "lth_zoo.random_controls:random_global",
        "random-erk": "lth_zoo.random_controls:random_erk",
        "random-layer": "lth_zoo.controls:random_layer",
        "smart-ratio": "lth_zoo.random_controls:smart_ratio",
        "hybrid": "lth_zoo.random_controls:hybrid",
        "equal-size": "lth_zoo.controls:equal_size",
        "equal-compute": "lth_zoo.controls:equal_compute",
        "one-shot": "lth_zoo.random_controls:one_shot",
        "one-shot-init": "lth_zoo.random_controls:one_shot_init",
        "one-shot-trained": "lth_zoo.random_controls:one_shot_trained",
        "shuffle-blocks": "lth_zoo.controls:shuffle_blocks",
        "random-edges": "lth_zoo.graph_controls:random_edges",
        "random-graph": "lth_zoo.graph_controls:random_graph",
        "graph-only": "lth_zoo.graph_controls:graph_only",
        "weights-only": "lth_zoo.graph_controls:weights_only",
        "inverted": "lth_zoo.controls:inverted",
        "random-scores": "lth_zoo.controls:random_scores",
        "random-labels": "lth_zoo.controls:random_labels",
        "random-pixels": "lth_zoo.controls:random_pixels",
        "half-data": "lth_zoo.controls:half_data",
    },
    "studies": {
        "alignment": "lth_zoo.studies.alignment:Alignment",
        "battery": "lth_zoo.studies.battery:Battery",
        "compare": "lth_zoo.studies.compare:Compare",
        "connectivity": "lth_zoo.studies.connectivity:Connectivity",
        "data": "lth_zoo.studies.data:OtherData",
        "fid": "lth_zoo.studies.fid:FID",
        "finders-quick": "lth_zoo.studies.compare:FindersQuick",
        "movement": "lth_zoo.studies.movement:Movement",
        "noise": "lth_zoo.studies.noise:Noise",
        "overlap": "lth_zoo.studies.overlap:MaskOverlap",
        "planted": "lth_zoo.studies.planted:Planted",
        "robustness": "lth_zoo.studies.robustness:Robustness",
        "subset-sum": "lth_zoo.studies.subset_sum:SubsetSum",
        "universal": "lth_zoo.studies.universal:Universal",
    },
}


@cache
def _entry_points(kind: str) -> dict[str, str]:
    from importlib.metadata import entry_points

    return {point.name: point.value for point in entry_points(group=f"lth_zoo.{kind}")}


def _rows(kind: str) -> dict[str, Any]:
    if kind not in KINDS:
        raise unknown("kind", kind, KINDS)
    return {**_entry_points(kind), **_ROWS[kind]}


def names(kind: str) -> list[str]:
    """Return every known name of that kind, sorted, without importing anything of it."""
    return sorted(_rows(kind))


def check(kind: str, name: str) -> None:
    """Assert that a name exists, without importing what is behind it.

    Raises:
        BadInput: no such name; the message has the nearest ones.
    """
    _row(kind, name)


def register(kind: str, name: str, target: Any) -> None:
    """Add a row in this process; ``target`` is an object or ``"module:object"``.

    Worker processes see only entry points and the built-in table, so a run in several
    processes needs an entry point.

    Raises:
        BadInput: the name is taken.
    """
    if name in _rows(kind):
        raise BadInput(f"{kind} {name!r} is registered twice")
    _ROWS[kind][name] = target


def unregister(kind: str, name: str) -> None:
    """Take back a row added by :func:`register`."""
    _ROWS[kind].pop(name, None)


def find(kind: str, name: str) -> Any:
    """Return the object behind a name.

    Raises:
        BadInput: no such name; the message has the nearest ones.
    """
    target = _row(kind, name)
    found = load(target) if isinstance(target, str) else target
    plain, at, suffix = name.partition("@")
    if at and name not in _rows(kind) and plain in _rows(kind) and not _has_variants(found):
        raise BadInput(f"{singular(kind)} {plain!r} has no variants, so not @{suffix}")
    return found


def singular(kind: str) -> str:
    """Return what one thing of a kind is called."""
    return "study" if kind == "studies" else kind.removesuffix("s")


def _has_variants(found: Any) -> bool:
    return bool(getattr(found, "variants", False))


def _row(kind: str, name: str) -> Any:
    rows = _rows(kind)
    if name in rows:
        return rows[name]
    if name.partition("@")[0] in rows:
        return rows[name.partition("@")[0]]
    owners = [row for row in rows if row.endswith("/") and name.startswith(row)]
    if not owners:
        raise unknown(singular(kind), name, rows)
    return rows[max(owners, key=len)]


def load(target: str) -> Any:
    """Import ``"module:object"``.

    Raises:
        BadInput: the module or the object does not exist.
    """
    module, _, attribute = target.partition(":")
    try:
        found = importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise BadInput(f"cannot import {target!r}: {error}") from error
    if not hasattr(found, attribute):
        raise unknown(f"object of {module}", attribute, [n for n in vars(found) if n[0] != "_"])
    return getattr(found, attribute)
