"""Golden keys and results: a change here changes what stores already hold.

Results are compared as a few projections with a tolerance, not as a hash of bits, since the
last bits of float arithmetic differ between processors.
"""

from __future__ import annotations

from typing import Any

import pytest
import tiny_gates
import torch
import toy_units
from toys import HERE, tiny_recipe

from lth_zoo.engines.local import run
from lth_zoo.experiment import experiment, lay_out
from lth_zoo.finders import (
    AWS,
    CTS,
    ICPG,
    IMP,
    UGS,
    Biprop,
    ChannelEarlyBird,
    DualGraph,
    EarlyBird,
    FastGLT,
    InstantSoup,
    MaskTraining,
    RigL,
    Structured,
    SynFlow,
)
from lth_zoo.formats import load_masks, load_snapshot
from lth_zoo.jobs import VERSIONS
from lth_zoo.parse import load
from lth_zoo.recipe import Recipe, shipped
from lth_zoo.runs import recipe_key
from lth_zoo.session import MASKS, RESULT, STATE
from lth_zoo.store import Store

#: recipe -> (head of its key, number of jobs)
RECIPES: dict[str, tuple[str, int]] = {
    "ae-mnist": ("48b5e52b58afc859", 291),
    "bert-glue": ("b85cf8b1647729f2", 200),
    "bert-mini-pydocs": ("aac8e6c169a2389a", 38),
    "bert-mlm": ("6c1ee351ada81bd8", 180),
    "bert-squad": ("c7affdb3b413b8a8", 140),
    "bert-transfer": ("888e8cd369715b00", 120),
    "conv2-cifar10": ("9d8c8416e2f9b7af", 910),
    "conv4-cifar10": ("2c7e41eb4eee3bb3", 910),
    "conv6-cifar10": ("8e7140202bd0b82c", 910),
    "dcgan-mnist": ("0113586e1a1d4265", 271),
    "gat-cora": ("a1cc0a027714192d", 408),
    "gat-photo": ("d9d8b3a18f98711c", 129),
    "gat-pubmed": ("2d29b15cbbd82809", 408),
    "gcn-cora": ("b618897c56766e5a", 1360),
    "gcn-digits-knn": ("1416ace46d4cb048", 180),
    "gcn-photo": ("47d2b4bd65848e4b", 129),
    "gcn-pubmed": ("3ca058002117c55f", 1360),
    "gin-cora": ("d7420314267e62b3", 408),
    "gin-photo": ("9469ed216d707a84", 129),
    "gin-pubmed": ("7d5efc41739d7a4f", 408),
    "lenet-mnist": ("bdc3712171e67681", 1010),
    "lenet-mnist-short": ("a6fb5d67b7023f3f", 760),
    "lenet5-mnist": ("fc3ee86c4ec33513", 4),
    "minilm-glue": ("7a92d26ad020f3b5", 150),
    "planted": ("da408699db81b9cb", 78),
    "quick": ("d6125eda646d9407", 360),
    "quick-popup": ("0dd16c277aaa6fc9", 30),
    "quick-conv": ("86cf076379135f98", 315),
    "resgcn-arxiv": ("341c5a863a52ea3c", 126),
    "resnet20-cifar10": ("5d4a6acf5df2eb25", 339),
    "sngan-cifar10": ("55754a04df048790", 236),
    "vae-digits": ("2cf7c5a70f929b2e", 45),
    "vae-mnist": ("da91d8698680e1c2", 271),
    "vgg16-cifar10": ("89c052977a1f754d", 579),
}

#: recipe -> kind and place in its graph -> (head of the key, projections of the result)
JOBS: dict[str, dict[str, tuple[str, list[float]]]] = {
    "imp": {
        "init 0": ("a4f169298e18aca9", [8.0958, -3.1401]),
        "train 1": ("6bfbddf407914eb0", [8.1182, -1.8111, 2.1004]),
        "train 2": ("495186e2dd9de476", [8.377, -0.0069, 1.5798, 1.5358]),
        "prune 3": ("5bdf1c5e8a283666", [34.4238, 3.3411]),
        "train 4": ("b89fe63c6c0551bf", [8.1226, 0.2915, 1.5953, 1.5655]),
        "prune 5": ("9e7576f196a78aa3", [30.4631, 5.6793]),
        "train 6": ("ab22259234bf3523", [7.8722, -3.2831, 1.6089, 1.5914]),
        "control 7": ("a1db21c3349a66e9", [8.1853, -4.0682]),
        "train 8": ("5e15fa8cda122623", [2.002, 1.9966]),
        "control 9": ("221e7f2949ed063d", [8.1853, -4.0682]),
        "train 10": ("8f70836ed43031b8", [1.9803, 1.9785]),
        "control 11": ("ca39d240cbb88f7f", [34.4238, -11.5668]),
        "train 12": ("e156736d51c5c8c2", [2.0214, 2.0306]),
        "control 13": ("ad72eaa7aa82298f", [30.4631, -16.5468]),
        "train 14": ("b0595be73a90cb08", [2.1681, 2.1705]),
        "control 15": ("e6cb93684a120688", [8.1182, 2.819]),
        "train 16": ("1f6ffe4f7c771daf", [2.0562, 2.0362]),
        "control 17": ("6a827cdc2895a9f5", [8.1182, 0.3925]),
        "train 18": ("313d83b334fc9db0", [2.1951, 2.2088]),
        "control 19": ("09c5edc9a7587d78", [34.4238, 3.8186]),
        "train 20": ("9b70ce5ec9df8d5f", [1.9241, 1.8933]),
        "control 21": ("3368ff6cb0b240b6", [30.4631, 3.474]),
        "train 22": ("e1000341456d3de5", [2.0373, 2.0185]),
        "prune 23": ("17332413b0678e5b", [34.4238, -1.5088]),
        "train 24": ("12525a19d4f75854", [2.2946, 2.2937]),
        "train 25": ("c4abd594b5f104b6", [2.7349, -1.0398, 2.2946, 2.2937]),
        "prune 26": ("7df26d9fe0bf7d96", [30.4631, 1.6043]),
        "train 27": ("18f7a9aab4051a0d", [2.301, 2.3]),
        "train 28": ("b73cc361fc3b3ac3", [8.0872, -3.3458, 2.306]),
        "train 29": ("91dc11f11f153fdc", [8.1483, -4.199, 2.3005, 2.3105]),
        "prune 30": ("5fbf667377656af4", [34.4238, -3.4423]),
        "train 31": ("f138ca8766a58dc0", [1.9862, 1.9626]),
        "train 32": ("e543521ed05125b5", [7.8854, -2.8955, 2.2987, 2.3046]),
        "prune 33": ("2e1cf3b098e369cc", [30.4631, -2.2033]),
        "train 34": ("87a7ba3e197e9b6a", [2.0191, 2.0145]),
    },
    "fresh head": {
        "init 0": ("a4f169298e18aca9", [8.0958, -3.1401]),
        "train 1": ("e889e7bc295dcff7", [8.0881, -2.8967, 2.2797, 2.2896]),
        "init 2": ("450e88a1507995db", [8.02, 2.8315]),
        "graft 3": ("756f61a5f4842823", [8.0687, -4.0493]),
        "prune 4": ("e1e6b2ff87d405bd", [34.0588, -1.5918]),
        "train 5": ("0f0e2551705ea0b6", [7.6544, -5.4523, 2.3044, 2.2948]),
    },
    "learn": {
        "init 0": ("a4f169298e18aca9", [8.0958, -3.1401]),
        "train 1": ("e889e7bc295dcff7", [8.0881, -2.8967, 2.2797, 2.2896]),
        "learn 2": ("15b82f245b1a9473", [34.0588, -4.2917, 8.0958, -3.1401]),
        "train 3": ("b39322efd62f6773", [7.8105, -5.9401, 2.3406, 2.3635]),
    },
    "supermask": {
        "init 0": ("a4f169298e18aca9", [8.0958, -3.1401]),
        "train 1": ("e889e7bc295dcff7", [8.0881, -2.8967, 2.2797, 2.2896]),
        "supermask 2": ("08ddc4dc3c7a632f", [34.0588, 28.1458, 11.6396, -21.1636]),
        "train 3": ("7ce5c3b77e7d25e0", [8.6293, -15.2828, 2.6044, 2.6175]),
    },
    "signs": {
        "init 0": ("ec5a91b7e37f059e", [32.5965, -4.0994]),
        "train 1": ("cda19d5b37319ab2", [42.7688, -36.4652, 0.8066, 0.831]),
        "init 2": ("19cad9d2433f8516", [32.6652, 3.1397]),
        "train 3": ("f090db336a97d398", [32.5101, -6.1834, 2.2557, 2.2645]),
        "prune 4": ("bd38ad3c4e10fd8d", [34.0588, 14.5307]),
        "train 5": ("6d4b722ef9b30a37", [32.7087, -9.6128, 2.1583, 2.1495]),
        "signs 6": ("db83778799f18e3a", [32.6652, 2.6258]),
        "train 7": ("c931df9bd7492a54", [42.5231, -31.5732, 1.2151, 1.1403]),
    },
    "concrete": {
        "init 0": ("a4f169298e18aca9", [8.0958, -3.1401]),
        "train 1": ("e889e7bc295dcff7", [8.0881, -2.8967, 2.2797, 2.2896]),
        "concrete 2": ("d662cc41b6f41ed4", [34.0588, 24.0408, 8.0958, -3.1401]),
        "train 3": ("a77b539c8c17c52b", [6.7248, 3.2266, 2.2577, 2.3077]),
    },
    "soup": {
        "init 0": ("a4f169298e18aca9", [8.0958, -3.1401]),
        "train 1": ("e889e7bc295dcff7", [8.0881, -2.8967, 2.2797, 2.2896]),
        "soup 2": ("1ad2d020107e2334", [45.7165, -3.9248, 8.0946, -3.1095]),
        "prune 3": ("0237210d5dce57b3", [34.0588, -2.2312]),
        "train 4": ("c131adc3a4317cca", [7.8114, -5.7603, 2.333, 2.3576]),
    },
    "early-bird": {
        "init 0": ("a4f169298e18aca9", [8.0958, -3.1401]),
        "train 1": ("e889e7bc295dcff7", [8.0881, -2.8967, 2.2797, 2.2896]),
        "early-bird 2": ("b7f71e84b891ce14", [34.0588, 0.0713, 8.0931, -3.0752]),
        "train 3": ("cb991f9791387802", [7.8116, -5.433, 2.326, 2.3492]),
    },
    "channels": {
        "init 0": ("ec5a91b7e37f059e", [32.5965, -4.0994]),
        "train 1": ("0158b63a3a89e4cc", [33.2949, -13.5607, 2.3051, 2.3237]),
        "channels 2": ("c8e45153e1f2b141", [33.7046, 2.9008, 32.5302, -7.2773]),
        "train 3": ("416d034ac0d8317e", [33.0776, -11.3398, 2.2991, 2.3233]),
    },
    "rounds": {
        "init 0": ("a4f169298e18aca9", [8.0958, -3.1401]),
        "train 1": ("e889e7bc295dcff7", [8.0881, -2.8967, 2.2797, 2.2896]),
        "rounds 2": ("c7f1a8de763c923a", [34.0588, -6.3532]),
        "train 3": ("c1df92f86ca953a0", [7.7215, -1.556, 2.304, 2.3356]),
    },
    "units": {
        "init 0": ("796b9d700f80547e", [8.0958, -3.1401]),
        "train 1": ("250ea8e8ba01e6ed", [8.0881, -2.8967, 2.2797, 2.2896]),
        "units 2": ("f770c7dd3fd0e55a", [32.9393, 2.1052]),
        "train 3": ("3f816af98a14d61f", [5.5379, -0.9342, 2.3019, 2.3065]),
    },
    "dynamic": {
        "init 0": ("a4f169298e18aca9", [8.0958, -3.1401]),
        "train 1": ("e889e7bc295dcff7", [8.0881, -2.8967, 2.2797, 2.2896]),
        "dynamic 2": ("e2a53711ba4242b8", [34.0588, -1.808, 6.3678, -3.6294]),
        "train 3": ("d71ea7291d988b7e", [6.5554, -3.5046, 2.2443, 2.2637]),
    },
    "gates": {
        "init 0": ("9047afbd8f7d7f76", [5.3109, -1.787]),
        "train 1": ("e339a65a4f1e2cc3", [5.3082, -2.0115, 1.5873, 1.6053]),
        "gates 2": ("b3b6c67cdafd9e81", [35.5809, -33.6486, 5.3052, -1.9333]),
        "train 3": ("53ed062565d139b5", [3.8848, -3.5094, 1.4662, 1.4743]),
    },
    "denoise": {
        "init 0": ("9047afbd8f7d7f76", [5.3109, -1.787]),
        "train 1": ("e339a65a4f1e2cc3", [5.3082, -2.0115, 1.5873, 1.6053]),
        "prune 2": ("c58cf23eace6424a", [35.5809, -9.9963]),
        "denoise 3": ("8effbf38ec44ac50", [35.5809, -16.1936, 4.8044, -2.5236]),
        "train 4": ("23775f20888b1684", [4.856, -2.193, 1.5939, 1.6131]),
    },
    "scorer": {
        "init 0": ("9047afbd8f7d7f76", [5.3109, -1.787]),
        "train 1": ("e339a65a4f1e2cc3", [5.3082, -2.0115, 1.5873, 1.6053]),
        "scorer 2": ("5a4d8a482de4b266", [35.5809, -21.6342, 5.3106, -2.1384]),
        "train 3": ("ebf1322d93f52811", [5.0292, -2.1859, 1.5776, 1.6134]),
    },
    "inform": {
        "init 0": ("9047afbd8f7d7f76", [5.3109, -1.787]),
        "train 1": ("e339a65a4f1e2cc3", [5.3082, -2.0115, 1.5873, 1.6053]),
        "prune 2": ("e83beef1f7f9678a", [35.5809, -11.7413]),
        "inform 3": ("497ae932376c6974", [35.5809, -11.7413, 3.7795, -0.1043]),
        "train 4": ("9309144beb668e20", [3.7838, -0.1864, 1.5939, 1.595]),
    },
}

#: Twenty steps of everything that a recipe may ask for, and of every kind of job.
ASKED: dict[str, dict[str, Any]] = {
    "imp": {
        "finder": IMP(rate=0.5, rates=("fc3=0.25",), rewind="step=5"),
        "sparsity": 0.6,
        "controls": (
            "reinit",
            "shuffle",
            "shuffle-weights",
            "random-erk",
            "inverted",
            "random-labels",
        ),
        "training": {
            "iterations": 20,
            "learning_rate": 0.01,
            "clip_norm": 1.0,
            "schedule": "cosine",
            "warmup": 3,
        },
    },
    "fresh head": {
        "finder": IMP(rate=0.5),
        "sparsity": 0.5,
        "head": "fresh",
        "training": {"iterations": 6},
    },
    "learn": {
        "finder": MaskTraining(iterations=4),
        "sparsity": 0.5,
        "training": {"iterations": 6},
    },
    "signs": {
        "model": toy_units.NORMED,
        "finder": AWS(rate=0.5),
        "sparsity": 0.5,
        "training": {"iterations": 20, "learning_rate": 0.01},
    },
    "concrete": {
        "finder": CTS(length="4", slack=0.5, rewind="init"),
        "sparsity": 0.5,
        "training": {"iterations": 6},
    },
    "soup": {
        "finder": InstantSoup(rounds=1, clones=2),
        "sparsity": 0.5,
        "training": {"iterations": 6},
    },
    "early-bird": {
        "finder": EarlyBird(every="1", window=2),
        "sparsity": 0.5,
        "training": {"iterations": 6},
    },
    "channels": {
        "model": toy_units.NORMED,
        "finder": ChannelEarlyBird(every="1", window=2),
        "sparsity": 0.5,
        "training": {"iterations": 6},
    },
    "rounds": {
        "finder": SynFlow(rounds=2),
        "sparsity": 0.5,
        "training": {"iterations": 6},
    },
    "units": {
        "model": toy_units.MODEL,
        "finder": Structured(batches=2),
        "sparsity": 0.5,
        "training": {"iterations": 6},
    },
}
ASKED |= {
    "dynamic": {
        "finder": RigL(every="2", accumulate=2, rewind="init"),
        "sparsity": 0.5,
        "training": {"iterations": 6},
    },
    "gates": tiny_gates.FIELDS
    | {
        "finder": UGS(rate=0.5, edge_rate=0.2, iterations=4),
        "sparsity": 0.5,
        "training": {"iterations": 6, "batch_size": 15},
    },
}
#: The other searches of graphs.
ASKED |= {
    kind: tiny_gates.FIELDS
    | {"finder": finder, "sparsity": 0.5, "training": {"iterations": 6, "batch_size": 15}}
    for kind, finder in [
        ("denoise", FastGLT(every=2)),
        ("scorer", ICPG(rate=0.5, edge_rate=0.2, width=4)),
        ("inform", DualGraph()),
    ]
}
ASKED |= {
    "supermask": {
        "finder": Biprop(scope="global", progressive=0.5, frozen_kept=0.2, iterations=4),
        "sparsity": 0.5,
        "training": {"iterations": 6},
    },
}
#: Kinds whose results other tests pin: a carried mask is another job's, renamed.
ELSEWHERE = {"carry", "elastic"}


@pytest.mark.parametrize("name", sorted(shipped()))
def test_the_keys_of_shipped_recipes(name):
    recipe = load(name)
    found = recipe_key(recipe)[:16], len(lay_out(recipe, "data").jobs)
    assert found == RECIPES.get(name), (
        "the recipe, a default or the layout of jobs changed: finished runs of it are no longer "
        "found. If that is meant, write the new key here and say so in the CHANGELOG."
    )


def test_the_keys_ignore_names_and_know_the_rest():
    plain = Recipe()
    assert recipe_key(plain) == recipe_key(Recipe(name="x", paper="y", expected="z"))
    others = [Recipe(sparsity=0.8), Recipe(seeds=(1,)), Recipe(finder=IMP(rate=0.1))]
    assert len({recipe_key(r) for r in [plain, *others]}) == 4


def projections(tensors):
    """The length of all values together, and their shadow on a fixed wave."""
    flat = torch.cat([tensors[name].double().reshape(-1) for name in sorted(tensors)])
    wave = (torch.arange(len(flat), dtype=torch.float64) * 0.7).cos()
    return [flat.norm().item(), (flat @ wave).item()]


def result_of(store, job):
    entry = store.entry(job)
    found = []
    if MASKS in entry:
        found += projections(load_masks(entry.read(MASKS)))
    if STATE in entry:
        found += projections(load_snapshot(entry.read(STATE)).state)
    if job.kind == "train":
        metrics = entry.json(RESULT)["metrics"]
        found += [metrics[split]["loss"] for split in sorted(metrics)]
    return found


def measured(folder, asked):
    """Run a recipe; return each job's label, key and projections."""
    with toy_units.registered(), tiny_gates.registered():
        laid, store = experiment(tiny_recipe(**asked)), Store(folder)
        assert run(laid.goals, store, HERE).failed == {}
        return {
            f"{job.kind} {place}": (job.key[:16], result_of(store, job))
            for place, job in enumerate(laid.jobs)
        }


@pytest.fixture(scope="module", params=sorted(ASKED))
def named(request, tmp_path_factory):
    return request.param, measured(tmp_path_factory.mktemp("golden"), ASKED[request.param])


def test_the_keys_of_jobs(named):
    name, found = named
    keys = {label: key for label, (key, _) in found.items()}
    assert keys == {label: key for label, (key, _) in JOBS[name].items()}, (
        "a job's config, inputs or VERSION changed: what stores hold is computed anew. If that "
        "is meant, write the new keys here and say so in the CHANGELOG."
    )


def test_the_results_of_jobs(named):
    name, found = named
    for label, (_, values) in found.items():
        kind = label.split()[0]
        # A mask may differ by a weight or two between processors, a float by its last bits.
        slack = 2e-3 if kind in ("init", "train", "control", "graft") else 1.5
        assert values == pytest.approx(JOBS[name][label][1], rel=2e-3, abs=slack), (
            f"{label} computes something else than before under the same key: "
            f"raise VERSIONS[{kind!r}] in lth_zoo/jobs.py, and measure these figures again"
        )


def test_every_kind_is_pinned():
    pinned = {label.split()[0] for labels in JOBS.values() for label in labels}
    assert pinned == set(VERSIONS) - ELSEWHERE
