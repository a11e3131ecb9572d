"""The rows of the studies in the table of contracts: settings that run in a moment."""

from __future__ import annotations

from typing import Any

from lth_zoo.finders import IMP, EdgePopup
from lth_zoo.studies.alignment import Alignment
from lth_zoo.studies.battery import Battery
from lth_zoo.studies.compare import Compare, FindersQuick
from lth_zoo.studies.connectivity import Connectivity
from lth_zoo.studies.data import OtherData
from lth_zoo.studies.movement import Movement
from lth_zoo.studies.noise import Noise
from lth_zoo.studies.overlap import MaskOverlap
from lth_zoo.studies.planted import Planted
from lth_zoo.studies.robustness import Robustness
from lth_zoo.studies.subset_sum import SubsetSum
from lth_zoo.studies.universal import Universal

#: study -> (its settings, fields of the tiny recipe it runs on)
STUDIES: dict[str, list[tuple[Any, dict[str, Any]]]] = {
    "compare": [(Compare(finders=("one-shot", "random-mask"), sparsities=(0.5, 0.8)), {})],
    "finders-quick": [(FindersQuick(finders=("random-mask",)), {"sparsity": 0.5})],
    "data": [(OtherData(carries=("mask", "mask+signs")), {"sparsity": 0.5})],
    "fid": [],  # it needs the file of a network: test_study_fid.py makes one
    "subset-sum": [(SubsetSum(samples=(4, 9)), {"model": "lenet-5-samex0.5"})],
    "movement": [(Movement(criteria=("sanh",)), {"sparsity": 0.5, "finder": IMP(rate=0.3)})],
    "overlap": [(MaskOverlap(), {"sparsity": 0.5, "finder": IMP(rate=0.3)})],
    "alignment": [
        (Alignment(points=("init", "step=4"), batches=2), {"sparsity": 0.5}),
    ],
    "battery": [(Battery(steps=2), {"sparsity": 0.5, "finder": IMP(rate=0.5)})],
    "connectivity": [
        (Connectivity(points=("step=4",), alphas=3), {"sparsity": 0.5}),
    ],
    "robustness": [
        (Robustness(eps=(0.1,), steps=2, restarts=1, examples=40, stops=(0.5,)), {"sparsity": 0.2})
    ],
    "noise": [(Noise(sigmas=(0.0, 1.0), signs=("free", "kept")), {"sparsity": 0.5})],
    "universal": [
        (Universal(targets=("digits", "digits@parity")), {"sparsity": 0.5, "finder": EdgePopup()})
    ],
    "planted": [
        (
            Planted(tasks=("circle", "relu"), finders=("one-shot", "imp"), rounds=2),
            {"model": "planted-circle-20x3", "seeds": (0,)},
        )
    ],
}
