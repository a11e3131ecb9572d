"""How near a sum of some of n random numbers comes to a trained weight: the strong ticket's law."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from ..errors import BadInput
from ..jobs import DENSE, Job
from ..protocols import Yardstick, adapter_of
from ..recipe import Recipe
from ..report.charts import Chart, Line, chart_picture
from ..report.tables import Table
from ..seeds import seeded
from ..session import task_for
from .base import Answer, Measured, Probe, Study
from .shared import grouped, mean_sd, searched

#: da Cunha et al.'s largest relative errors on MNIST, read from the curves they released.
PUBLISHED = {
    "weights": {5: 0.89, 10: 0.57, 15: 0.018, 20: 7.3e-4, 25: 7.7e-5, 30: 7.7e-6},
    "outputs": {5: 0.54, 10: 0.15, 15: 5.8e-3, 20: 3.6e-4, 25: 2.8e-5, 30: 2.5e-6},
}
#: Beyond this 2**(n/2) sums a weight take minutes a weight.
MOST = 40


@dataclass(frozen=True)
class SubsetSum(Study):
    """Can a random network's subset imitate trained convolutions? (da Cunha et al. 2022)

    Every parameter of the trained network's convolutions is written as a sum of some of n
    numbers drawn from U(-1, 1); the largest errors of parameters and of outputs are measured.
    """

    samples: tuple[int, ...] = (5, 10, 15, 20, 25, 30)
    """Numbers drawn for each parameter."""

    recipe: ClassVar[str] = "lenet5-mnist"
    paper: ClassVar[str] = "da Cunha, Natale & Viennot, ICLR 2022, section 5"

    def __post_init__(self) -> None:
        for n in self.samples:
            if not 1 <= n <= MOST:
                raise BadInput(f"study.samples holds {n}; it must be between 1 and {MOST}")
        if not self.samples:
            raise BadInput("study.samples must hold at least one number")

    def lay_out(self, recipe: Recipe, data: Path | None) -> Sequence[Probe]:
        """Return the approximations of each seed's dense network.

        Raises:
            BadInput: the model has no convolution, or answers no images' labels.
        """
        from ..probes.subset_sum import convolutions

        task = task_for(recipe, data)
        with seeded(0, "init"):
            model = adapter_of(recipe.model).build(recipe.model, task.signature)
        images = len(task.signature.input) == 3 and task.signature.answer == "classes"
        if not images or not convolutions(model):
            raise BadInput(
                "study 'subset-sum' imitates convolutions that classify images, and "
                f"{recipe.model!r} on {recipe.task!r} has none; choose lenet-5-same, conv-2 or "
                "resnet-20 on images"
            )
        one = searched(recipe, data)
        found = []
        for arm in one.arms:
            for n in self.samples if arm.name == DENSE else ():
                names = ("model", "task", "data", "seed", "data_fraction")
                config = {k: v for k, v in arm.goal.config.items() if k in names}
                job = Job("subset-sum", {**config, "n": n}, {"state": arm.goal})
                found.append(Probe({"n": n, "seed": arm.seed}, job))
        return found

    def answer(self, recipe: Recipe, by: Yardstick, measured: Sequence[Measured]) -> Answer:  # noqa: ARG002
        """Return the largest relative errors over n, beside the published ones on MNIST."""
        rows: list[dict[str, Any]] = []
        for (n,), runs in grouped(measured, "n").items():
            weights = [max(run["weights"].values()) for run in runs.values()]
            outputs = {
                split: [run["outputs"][split] for run in runs.values()]
                for split in ("train", "test")
            }
            rows.append({"n": n, "weights": weights, "outputs": outputs})
        lines = (
            Line("weights", tuple((r["n"], *mean_sd(r["weights"])) for r in rows)),
            Line("outputs, test", tuple((r["n"], *mean_sd(r["outputs"]["test"])) for r in rows)),
            *(
                Line(f"{what}, published", tuple((n, v, 0.0) for n, v in curve.items()))
                for what, curve in PUBLISHED.items()
            ),
        )
        picture = chart_picture(
            *("subset-sum", "Largest relative error over the number of samples a parameter"),
            "Published: da Cunha et al. (2022), their network on MNIST.",
            [Chart("samples a parameter", "largest relative error", lines, log="y")],
        )
        parameters = measured[0].result["parameters"]
        return Answer((_said(rows, parameters),), (picture, _table(rows)), {"rows": rows})


def _said(rows: Sequence[dict[str, Any]], parameters: int) -> str:
    first, last = rows[0], rows[-1]
    from_, to = (mean_sd(row["weights"])[0] for row in (first, last))
    return (
        f"The worst of {parameters:,} parameters is off by {from_:.2g} of the largest with "
        f"{first['n']} samples and by {to:.2g} with {last['n']}; the worst test output by "
        f"{mean_sd(first['outputs']['test'])[0]:.2g} and {mean_sd(last['outputs']['test'])[0]:.2g} "
        f"(n = {len(last['weights'])})."
    )


def _table(rows: Sequence[dict[str, Any]]) -> Table:
    def shown(values: Sequence[float]) -> str:
        return f"{mean_sd(values)[0]:.2g}"

    cells = tuple(
        (
            str(row["n"]),
            *(shown(v) for v in (row["weights"], row["outputs"]["train"], row["outputs"]["test"])),
            *(
                f"{curve[row['n']]:.2g}" if row["n"] in curve else "—"
                for curve in PUBLISHED.values()
            ),
        )
        for row in rows
    )
    columns = ("samples", "weights", "outputs, train", "outputs, test")
    published = ("weights, published", "outputs, published")
    note = "Largest relative error: of a parameter in its tensor, of the last convolution's output."
    title = "Subset sums in the place of trained parameters"
    return Table("subset-sum", title, (*columns, *published), cells, note, frozenset())
