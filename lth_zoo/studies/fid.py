"""The Frechet distance in Inception's features, for those who have the network's weights."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from ..errors import BadInput, DataError
from ..jobs import DENSE, Job
from ..protocols import Task, Yardstick, adapter_of
from ..recipe import Recipe
from ..report.charts import Chart, Line, chart_picture
from ..report.tables import Table
from ..session import task_for
from ..trials.compare import compare
from .base import Answer, Measured, Probe, Study
from .shared import cell, grouped, kept_share, mean_sd, searched

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class FID(Study):
    """How good are a generator's tickets by the Inception network? (Heusel et al. 2017)

    New images of every dense network and ticket are compared with as many of the test part, in
    the features of a network that you bring; the verdict's own distance is of a small classifier.
    """

    inception: str = ""
    """TorchScript file of the network (uint8 images in, features out), or torchmetrics' weights
    (.pth); empty: torchmetrics' download."""
    images: int = 10_000
    """New images, and real ones, at most those of the test part; more than there are features."""

    recipe: ClassVar[str] = "dcgan-mnist"
    paper: ClassVar[str] = "Heusel et al., NeurIPS 2017, arXiv:1706.08500"

    def __post_init__(self) -> None:
        if self.images < 2:
            raise BadInput(f"study.images is {self.images}; it must be at least 2")

    def lay_out(self, recipe: Recipe, data: Path | None) -> Sequence[Probe]:
        """Return the measurements of every dense network and ticket.

        Raises:
            BadInput: the recipe's model makes no images, or no library has the network.
            DataError: the file cannot be read.
        """
        if not adapter_of(recipe.model).generates:
            raise BadInput(
                f"study 'fid' measures new images, and {recipe.model!r} makes none: choose a "
                "recipe of generation/..., such as dcgan-mnist or vae-mnist"
            )
        from ..probes.inception import features_by

        self._try(features_by(self.inception), task_for(recipe, data))
        one = searched(recipe, data)
        found = []
        for arm in one.arms:
            names = ("model", "task", "data", "seed", "data_fraction")
            config = {k: v for k, v in arm.goal.config.items() if k in names}
            config |= {"images": self.images, "path": self.inception, "weights": self._digest()}
            judges = {r: j for r, j in arm.goal.inputs.items() if r.startswith("judge-")}
            job = Job("fid", config, {"state": arm.goal, **judges})
            of = {"arm": arm.name, "level": arm.level.index, "seed": arm.seed}
            found += [Probe({**of, "what": "fid"}, job), Probe({**of, "what": "run"}, arm.goal)]
        return found

    def _try(self, read: Callable[[Tensor], Tensor], task: Task) -> None:
        """Raise if the network does not answer or has too many features, before any search."""
        import torch

        features = read(task.batch("test", torch.arange(2))).shape[1]
        images = min(self.images, task.size("test"), task.size("train"))
        if images <= features:
            raise BadInput(
                f"study 'fid' compares {images:,} images in {features:,} features: there must be "
                "more images than features. Raise study.images, or take a task with a larger test "
                "part"
            )

    def _digest(self) -> str:
        if not self.inception:
            return "torchmetrics"
        try:
            return hashlib.sha256(Path(self.inception).read_bytes()).hexdigest()
        except OSError as error:
            raise DataError(f"study.inception {self.inception!r}: {error}") from error

    def answer(self, recipe: Recipe, by: Yardstick, measured: Sequence[Measured]) -> Answer:  # noqa: ARG002
        """Return the distance by level, beside the floor of real images."""
        fids = grouped([m for m in measured if m.of["what"] == "fid"], "arm", "level")
        trained = [m for m in measured if m.of["what"] == "run"]
        dense = {seed: r["fid"] for seed, r in fids.get((DENSE, 0), {}).items()}
        rows: list[dict[str, Any]] = []
        for (arm, level), found in fids.items():
            values = {seed: r["fid"] for seed, r in found.items()}
            kept = kept_share(m for m in trained if (m.of["arm"], m.of["level"]) == (arm, level))
            sparsity = 0.0 if kept is None else 1 - kept
            against = compare(values, dense, higher_is_better=False)
            row = {"arm": arm, "level": level, "sparsity": sparsity, "values": values}
            rows.append(row | {"difference": against.difference, "interval": against.interval})
        floor = mean_sd(m.result["floor"] for m in measured if m.of["what"] == "fid")[0]
        tickets = tuple(
            (100 * row["sparsity"], *mean_sd(row["values"].values()))
            for row in rows
            if row["arm"] != DENSE
        )
        lines = [Line("real against real", ((0.0, floor, 0.0),), level=True)]
        if dense:
            lines.append(Line(DENSE, ((0.0, *mean_sd(dense.values())),), level=True))
        if tickets:
            lines.append(Line("ticket", tuple(sorted(tickets))))
        picture = chart_picture(
            *("fid", "Frechet distance in Inception's features"),
            "Lower is better. Bands: one standard deviation over seeds.",
            [Chart("sparsity, %", "Frechet distance", tuple(lines))],
        )
        said = tuple(_said(row) for row in rows if row["arm"] != DENSE and row["interval"])
        if math.isnan(floor):
            about = ("No distance was measured: see what failed.",)
        else:
            about = (f"Real images against real ones of the same number: {floor:.2f}.",)
        data = {"rows": rows, "floor": floor}
        return Answer(said + about, (picture, _table(rows, floor)), data)


def _said(row: dict[str, Any]) -> str:
    low, high = row["interval"]
    return (
        f"Level {row['level']} ({100 * row['sparsity']:.1f} % sparse): distance "
        f"{row['difference']:+.2f} [{low:+.2f}, {high:+.2f}] against dense, lower is better, "
        f"paired, n = {len(row['values'])}."
    )


def _table(rows: Sequence[dict[str, Any]], floor: float) -> Table:
    cells = [
        (
            row["arm"],
            str(row["level"]),
            f"{100 * row['sparsity']:.1f} %",
            cell(row["values"].values()),
        )
        for row in rows
    ]
    cells.append(("real against real", "", "", f"{floor:.2f}"))
    note = "Mean ± one sample standard deviation over seeds; lower is better."
    columns = ("arm", "level", "sparsity", "Frechet distance")
    return Table("fid", "Frechet distance in Inception's features", columns, tuple(cells), note)
