"""The report folder: one self-contained HTML page, Markdown, JSON and PNG figures."""

from __future__ import annotations

import base64
import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from lth_zoo.errors import BadInput
from lth_zoo.trials.cells import Judged, TransferResults, judge_cells
from lth_zoo.trials.results import Results

from . import costs, matrix, series, tables, words
from .figures import Picture, pictures
from .folder import DATA, KIND, PAGE, TEXT, check_free, replacing
from .graphs import graph_findings, graph_pictures, kept_table
from .heatmap import transfer_pictures
from .measures import agreement_table, measures_table
from .plane import Plane, Spot, front_table, plane_findings, plane_table, planes, spots
from .plane_figures import pareto_picture, plane_pictures
from .samples import sample_pictures
from .tables import Table

if TYPE_CHECKING:
    from lth_zoo.trials.verdict import LevelVerdict


@dataclass(frozen=True)
class Part:
    """One part of a report; ``blocks`` are figures and tables in reading order."""

    slug: str
    name: str
    recipe: Mapping[str, Any]
    findings: tuple[str, ...]
    blocks: tuple[Picture | Table, ...]

    @property
    def paper(self) -> str:
        """Where the protocol is from."""
        return str(self.recipe.get("paper") or "")

    @property
    def expected(self) -> str:
        """Published figures, shown beside the measured ones."""
        return str(self.recipe.get("expected") or "")

    @property
    def images(self) -> dict[str, Picture]:
        """File name -> figure."""
        found = (b for b in self.blocks if isinstance(b, Picture))
        return {f"{self.slug}-{picture.name}.png": picture for picture in found}


@dataclass(frozen=True)
class Section(Part):
    """One recipe's part of a report."""

    results: Results
    verdicts: Sequence[LevelVerdict]
    spots: Sequence[Spot] = ()


@dataclass(frozen=True)
class Over(Part):
    """The part of several recipes that differ only in how much of weights and edges they prune."""

    plane: Plane


@dataclass(frozen=True)
class Asked(Part):
    """A study's part of a report; ``data`` is its answer as plain data."""

    data: Mapping[str, Any]


@dataclass(frozen=True)
class Crossing(Part):
    """One transfer matrix's part of a report."""

    results: TransferResults
    judged: Sequence[Judged]


def write_report(
    results: Sequence[Results],
    out: Path,
    title: str = "Lottery ticket report",
    transfers: Sequence[TransferResults] = (),
    studies: Sequence[Asked] = (),
) -> dict[str, Path]:
    """Write the report of finished recipes, transfer matrices and studies into the folder ``out``.

    The folder appears whole or not at all; an older report there is replaced.

    Returns:
        ``html``, ``markdown``, ``json`` and each figure's file name -> path.

    Raises:
        BadInput: no results, or ``out`` holds something that is no report.
        StoreError: the folder cannot be written.
    """
    if not results and not transfers and not studies:
        raise BadInput("no results to report; give at least one finished recipe")
    out = Path(out).resolve()
    check_free(out)
    arms = list(dict.fromkeys(arm for each in results for arm in each.arms()))
    names = [*map(tables.recipe_name, results), *map(matrix.transfer_name, transfers)]
    over = planes(results)
    slugs = iter(_slugs([*(plane.name for plane in over), *names]))
    sections: list[Part] = [_over(plane, next(slugs), arms) for plane in over]
    sections += [_section(each, next(slugs), arms) for each in results]
    sections += [_crossing(each, next(slugs)) for each in transfers]
    sections += studies
    with replacing(out) as folder:
        for section in sections:
            for name, picture in section.images.items():
                (folder / name).write_bytes(picture.light)
        (folder / TEXT).write_text(_markdown(sections, title), encoding="utf-8")
        (folder / PAGE).write_text(_html(sections, title), encoding="utf-8")
        (folder / DATA).write_text(_json(sections, title), encoding="utf-8")
    named = {"html": PAGE, "markdown": TEXT, "json": DATA}
    images = {name: name for section in sections for name in section.images}
    return {key: out / name for key, name in {**named, **images}.items()}


def _section(results: Results, slug: str, arms: Sequence[str]) -> Section:
    verdicts = judge(results)
    found = spots(results) if results.prunes_edges else []
    pareto = pareto_picture([found], arms)
    every = [*pictures(results, arms), *graph_pictures(results), *sample_pictures(results, arms)]
    drawn = {picture.name: picture for picture in every}
    order: list[Picture | Table | None] = [
        drawn.get("accuracy"),
        tables.verdict_table(results, verdicts),
        tables.remarks_table(verdicts),
        tables.controls_table(results, verdicts),
        tables.accuracy_table(results),
        drawn.get("samples"),
        drawn.get("reconstructions"),
        drawn.get("interpolation"),
        measures_table(results),
        agreement_table(results),
        pareto,
        front_table(found, series.decimals(results)) if pareto else None,
        drawn.get("removed-edges"),
        kept_table(results),
        drawn.get("graph"),
        drawn.get("early-stop"),
        drawn.get("training"),
        drawn.get("density"),
        costs.counts_table(results),
        costs.cost_table(results),
        tables.trouble_table(results),
        costs.recipe_table(results),
    ]
    said = (*words.findings(results, verdicts), *graph_findings(results))
    name = tables.recipe_name(results)
    return Section(slug, name, results.recipe, said, _filled(order), results, verdicts, found)


def _over(plane: Plane, slug: str, arms: Sequence[str]) -> Over:
    heat, *more = plane_pictures(plane, arms)
    front = front_table(plane.every, series.decimals(plane.results[0]))
    blocks = _filled([heat, plane_table(plane), *more, front])
    return Over(slug, plane.name, {}, plane_findings(plane), blocks, plane)


def _filled(order: Sequence[Picture | Table | None]) -> tuple[Picture | Table, ...]:
    """Return what there is to show: figures, and tables that have rows."""
    return tuple(b for b in order if isinstance(b, Picture) or (b is not None and b.rows))


def _crossing(results: TransferResults, slug: str) -> Crossing:
    judged = judge_cells(results)
    drawn = {picture.name: picture for picture in transfer_pictures(results, judged)}
    order: list[Picture | Table | None] = [
        drawn.get("transfer-dense"),
        drawn.get("transfer-same-task"),
        matrix.means_table(results, judged),
        matrix.cells_table(results, judged),
        matrix.targets_table(results),
        drawn.get("overlap"),
        matrix.overlap_table(results),
        matrix.overlap_layers_table(results),
        matrix.trouble_table(results),
        matrix.transfer_recipe_table(results),
    ]
    found = matrix.transfer_findings(results, judged)
    name = matrix.transfer_name(results)
    return Crossing(slug, name, results.recipe, found, _filled(order), results, judged)


def judge(results: Results) -> list[LevelVerdict]:
    """Return the verdict of every level, with the test that the recipe declares."""
    from lth_zoo.trials.verdict import judge_levels

    return judge_levels(results, paired=results.recipe.get("compare", "paired") == "paired")


def _slugs(names: Sequence[str]) -> list[str]:
    """Return file-name forms of the names, each once."""
    found: list[str] = []
    for name in names:
        plain = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:60] or "recipe"
        slug, count = plain, 2
        while slug in found:
            slug, count = f"{plain}-{count}", count + 1
        found.append(slug)
    return found


def _summary(sections: Sequence[Part]) -> Table:
    return words.summary_table([(s.results, s.verdicts) for s in _of(sections, Section)])


def _limits(sections: Sequence[Part]) -> tuple[str, ...]:
    recipes = [s.results for s in _of(sections, Section)]
    crossings = [s.results for s in _of(sections, Crossing)]
    return (words.limits(recipes) if recipes else ()) + matrix.transfer_limits(crossings)


P = TypeVar("P", bound=Part)


def _of(sections: Sequence[Part], kind: type[P]) -> list[P]:
    return [section for section in sections if isinstance(section, kind)]


def _html(sections: Sequence[Part], title: str) -> str:
    from jinja2 import Environment, StrictUndefined

    from lth_zoo import __version__

    page = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    page.filters["base64"] = lambda data: base64.b64encode(data).decode()
    source = files(__package__).joinpath("page.html").read_text(encoding="utf-8")
    return page.from_string(source).render(
        title=title,
        version=__version__,
        sections=sections,
        summary=_summary(sections),
        limits=_limits(sections),
        tones=tables.TONES,
    )


def _markdown(sections: Sequence[Part], title: str) -> str:
    parts = [f"# {title}", ""]
    if len(_of(sections, Section)) > 1:
        parts.append(tables.to_markdown(_summary(sections)))
    for section in sections:
        parts += [f"## {section.name}", ""]
        parts += [f"Protocol: {section.paper}", ""] if section.paper else []
        parts += [f"- {line}" for line in section.findings]
        parts += [f"- Published: {section.expected}"] if section.expected else []
        parts.append("")
        for block in section.blocks:
            if isinstance(block, Picture):
                image = f"![{block.title}]({section.slug}-{block.name}.png)"
                parts += [f"### {block.title}", "", image, "", block.caption, ""]
            else:
                parts.append(tables.to_markdown(block))
    if limits := _limits(sections):
        parts += ["## What this does not say", "", "\n\n".join(limits), ""]
    return "\n".join(parts)


def _json(sections: Sequence[Part], title: str) -> str:
    recipes = [
        {
            "name": section.name,
            "results": section.results.to_json(),
            "verdicts": [verdict.to_json() for verdict in section.verdicts],
            "figures": list(section.images),
            **({"spots": [asdict(spot) for spot in section.spots]} if section.spots else {}),
        }
        for section in _of(sections, Section)
    ]
    transfers = [
        {
            "name": section.name,
            "results": section.results.to_json(),
            "judged": [judged.to_json() for judged in section.judged],
            "figures": list(section.images),
        }
        for section in _of(sections, Crossing)
    ]
    data = {"kind": KIND, "schema": 1, "title": title, "recipes": recipes, "transfers": transfers}
    if asked := _of(sections, Asked):
        data["studies"] = [{"name": s.name, **s.data, "figures": list(s.images)} for s in asked]
    if over := _of(sections, Over):
        data["planes"] = [{**s.plane.to_json(), "figures": list(s.images)} for s in over]
    return json.dumps(_finite(data), allow_nan=False) + "\n"


def _finite(value: Any) -> Any:
    """Replace what JSON has no number for (nan, infinity) by null."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return value
