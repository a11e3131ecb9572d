"""How alike masks are: across seeds, finders and levels, layer by layer, beside chance."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from itertools import combinations, pairwise
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any, ClassVar

from .. import registry
from ..errors import BadInput
from ..jobs import Job, Level
from ..masks import DATA
from ..protocols import Finder, Yardstick
from ..recipe import Recipe, build, finder_name
from ..report.charts import Chart, Line, chart_picture
from ..report.figures import Picture
from ..report.heatmap import colour_bar, picture_of, squares, wrapped
from ..report.tables import Table
from ..trials.compare import compare
from ..trials.overlap import Shared, jaccard
from .base import Answer, Measured, Probe, Study
from .shared import cell, mean_sd, searched, tickets_at

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from ..report.style import Theme

#: seed -> level -> what a finder made there.
Found = Mapping[int, Mapping[int, Level]]
#: Measures of two masks, each beside chance: the Jaccard index, the share of places that differ,
#: and the share of weights kept by both whose trained signs are the same.
MEASURES = {"jaccard": "Jaccard index", "hamming": "Hamming distance", "signs": "same sign"}
#: What pairs of masks are across.
_WORDS = {
    "seeds": "two seeds",
    "finders": "two finders of one seed",
    "levels": "two levels of one search",
}


@dataclass(frozen=True)
class MaskOverlap(Study):
    """Do tickets of other seeds, other finders, other levels keep the same weights?

    Jaccard index, Hamming distance and agreement of the trained signs of pairs of masks, whole
    and by layer, beside what independent masks with the same densities by layer would give.
    """

    finders: tuple[str, ...] = ("one-shot",)
    """Finders beside the recipe's own, with its scope and rewinding where they have them."""
    levels: tuple[int, ...] = ()
    """Levels of the recipe's search beside the last (default: the first and the middle one)."""
    signs: bool = True
    """Whether to compare trained signs, which trains the last level of every finder."""

    paper: ClassVar[str] = (
        "Zhou et al., NeurIPS 2019, arXiv:1905.01067 (signs); Paganini and Forde, 2020, "
        "arXiv:2001.05050 (masks of several finders)"
    )

    def __post_init__(self) -> None:
        for name in self.finders:
            registry.check("finders", name)

    def lay_out(self, recipe: Recipe, data: Path | None) -> Sequence[Probe]:
        """Return a comparison of every pair of masks."""
        own = finder_name(recipe.finder)
        one = searched(recipe, data)
        last = tickets_at(one, ())[0].level.index
        # The last one is always among them: there all finders keep the same share.
        levels = {*(self.levels or (1, (1 + last) // 2)), last}
        known = {own: _found(recipe, data, sorted(levels))}
        for name in dict.fromkeys(self.finders):
            if name != own:
                other = replace(recipe, finder=_like(name, recipe.finder))
                known[name] = _found(other, data, ())
        return [*self._across_seeds(known), *self._across_finders(known), *self._levels(known)]

    def _across_seeds(self, known: Mapping[str, Found]) -> Iterator[Probe]:
        for finder, found in known.items():
            for a, b in combinations(found, 2):
                for level in found[a].keys() & found[b].keys():
                    of = {"across": "seeds", "pair": finder, "level": level, "seeds": (a, b)}
                    yield Probe(of, self._compare(found[a][level], found[b][level], a))

    def _across_finders(self, known: Mapping[str, Found]) -> Iterator[Probe]:
        for (x, xs), (y, ys) in combinations(known.items(), 2):
            for seed in xs:
                a, b = xs[seed][max(xs[seed])], ys[seed][max(ys[seed])]
                of = {"across": "finders", "pair": f"{x} and {y}", "level": a.index, "seed": seed}
                yield Probe(of, self._compare(a, b, seed))

    def _levels(self, known: Mapping[str, Found]) -> Iterator[Probe]:
        for finder, found in known.items():
            for seed, levels in found.items():
                for a, b in pairwise(sorted(levels)):
                    of = {"across": "levels", "pair": f"{finder}, {a} and {b}", "level": b}
                    yield Probe(of | {"seed": seed}, self._compare(levels[a], levels[b], seed))

    def _compare(self, a: Level, b: Level, seed: int) -> Job:
        assert a.masks is not None
        assert b.masks is not None
        inputs = {"masks-a": a.masks, "masks-b": b.masks}
        if self.signs and a.train is not None and b.train is not None:
            inputs |= {"state-a": a.train, "state-b": b.train}
        return Job("overlap", {"seed": seed}, inputs)

    def answer(self, recipe: Recipe, by: Yardstick, measured: Sequence[Measured]) -> Answer:  # noqa: ARG002
        """Return every kind of pair with its measures, whole and by layer."""
        keys = dict.fromkeys((m.of["across"], m.of["pair"], m.of["level"]) for m in measured)
        rows = []
        for key in keys:
            mine = [m for m in measured if (m.of["across"], m.of["pair"], m.of["level"]) == key]
            rows.append({"across": key[0], "pair": key[1], "level": key[2], **_row(mine)})
        findings = tuple(said for row in rows for said in _said(row))
        pictures = [*_curves(rows), _by_layer(rows)]
        return Answer(findings, (*pictures, _table(rows)), {"rows": rows})


def _found(recipe: Recipe, data: Path | None, levels: Sequence[int]) -> dict[int, dict[int, Level]]:
    found: dict[int, dict[int, Level]] = {}
    for arm in tickets_at(searched(recipe, data), levels):
        if arm.level.masks is None:
            name = finder_name(recipe.finder)
            raise BadInput(f"finder {name!r} makes no masks at level {arm.level.index} to compare")
        found.setdefault(arm.seed, {})[arm.level.index] = arm.level
    return found


def _like(name: str, finder: Finder) -> Finder:
    """Return a finder as it is by default, but with another's scope and rewinding."""
    kind = registry.find("finders", name)
    usual = {f.name: f.default for f in fields(kind)}
    # What a method trains on from where it stands (rewind none) is its own affair.
    taken = [n for n in ("scope", "rewind") if n in usual and usual[n] in ("global", "init")]
    found: Finder = build(kind, {n: getattr(finder, n) for n in taken if hasattr(finder, n)})
    return found


# -- measures ------------------------------------------------------------------------------------


def measures(result: Mapping[str, Any], names: Sequence[str]) -> dict[str, tuple[float, float]]:
    """Return each measure over these tensors, and its value by chance.

    Chance is of independent masks with the two densities of each tensor; of signs, with the two
    shares of positive ones.
    """
    kept = [Shared(**result["layers"][n]) for n in names]
    size = max(1, sum(s.size for s in kept))
    expected = sum(s.a * s.b / s.size for s in kept if s.size)
    total = sum(s.a + s.b for s in kept)
    found = {
        "jaccard": jaccard(kept),
        "hamming": ((total - 2 * sum(s.both for s in kept)) / size, (total - 2 * expected) / size),
    }
    signs = [result["signs"][n] for n in names if n in result.get("signs", {})]
    if both := sum(s["size"] for s in signs):
        alike = sum(
            (s["a"] * s["b"] + (s["size"] - s["a"]) * (s["size"] - s["b"])) / s["size"]
            for s in signs
        )
        found["signs"] = (sum(s["same"] for s in signs) / both, alike / both)
    return found


def _row(mine: Sequence[Measured]) -> dict[str, Any]:
    names = list(mine[0].result["layers"])
    weights = [n for n in names if not n.startswith(DATA)]
    whole = [measures(m.result, weights or names) for m in mine]
    first = mine[0].result["layers"]
    kept = sum(first[n]["b"] for n in weights) / max(1, sum(first[n]["size"] for n in weights))
    row: dict[str, Any] = {"pairs": len(mine), "kept": kept}
    for measure in MEASURES:
        known = [(m, w[measure]) for m, w in zip(mine, whole, strict=True) if measure in w]
        if known:
            row[measure] = [value for _, (value, _) in known]
            row[f"{measure}_chance"] = fmean(chance for _, (_, chance) in known)
            row[f"{measure}_above"], row[f"{measure}_interval"] = above(
                {_seeds(m): value - chance for m, (value, chance) in known}
            )
    row["layers"] = {
        n: tuple(
            fmean(pair[i] for pair in (measures(m.result, [n])["jaccard"] for m in mine))
            for i in (0, 1)
        )
        for n in names
    }
    return row


def _seeds(one: Measured) -> tuple[int, ...]:
    return tuple(one.of["seeds"]) if "seeds" in one.of else (one.of["seed"],)


def above(
    excess: Mapping[tuple[int, ...], float],
) -> tuple[float, tuple[float, float] | None]:
    """Return the mean of what is above chance, and its 95 % interval over seeds.

    Pairs that share a seed are not independent: the spread of a mean over pairs is that of its
    jackknife over seeds (Arvesen 1969), which of single seeds is the usual one.

    >>> above({(0,): 1.0, (1,): 3.0})[0], above({(0, 1): 0.5})
    (2.0, (0.5, None))
    """
    seeds = sorted({seed for key in excess for seed in key})
    mean = fmean(excess.values())
    without = {s: [v for key, v in excess.items() if s not in key] for s in seeds}
    if len(seeds) < 2 or not all(without.values()):
        return mean, None
    n = len(seeds)
    pseudo = {s: n * mean - (n - 1) * fmean(left) for s, left in without.items()}
    return mean, compare(pseudo, dict.fromkeys(seeds, 0.0)).interval


# -- words, table, pictures ----------------------------------------------------------------------


def _said(row: Mapping[str, Any]) -> Iterator[str]:
    """Yield what a kind of pair shares, and on which signs it agrees."""
    place = f"{row['pair']}, level {row['level']}" if row["across"] != "levels" else row["pair"]
    head = f"{_WORDS[row['across']].capitalize()} ({place}; {100 * row['kept']:.3g} % kept)"
    count = f"{row['pairs']} pair{'s' * (row['pairs'] != 1)}"
    yield f"{head}: {_verdict(row, 'jaccard')}; {count}."
    if "signs" in row:
        yield f"{head}: signs of the trained weights that both keep: {_verdict(row, 'signs')}."


def _verdict(row: Mapping[str, Any], measure: str) -> str:
    interval, values = row[f"{measure}_interval"], row[measure]
    words = f"{MEASURES[measure]} {fmean(values):.3f}, by chance {row[f'{measure}_chance']:.3f}"
    if interval is None:
        return f"{words}, too few seeds to say whether that is more"
    low, high = interval
    verdict = "above" if low > 0 else "below" if high < 0 else "not told from"
    bounds = f"{row[f'{measure}_above']:+.3f} [{low:+.3f}, {high:+.3f}]"
    return f"{words}: {verdict} chance, {bounds}"


def _curves(rows: Sequence[Mapping[str, Any]]) -> list[Picture]:
    """Draw what two seeds of the recipe's own finder share, over its levels."""
    own = next((row["pair"] for row in rows if row["across"] == "seeds"), None)
    seeds = [row for row in rows if (row["across"], row["pair"]) == ("seeds", own)]
    charts = []
    for measure, up in MEASURES.items():
        mine = sorted((r for r in seeds if measure in r), key=lambda row: float(row["kept"]))
        if mine:
            xs = [float(f"{100 * row['kept']:.3g}") for row in mine]
            found = [(x, *mean_sd(row[measure])) for x, row in zip(xs, mine, strict=True)]
            chance = [(x, row[f"{measure}_chance"], 0.0) for x, row in zip(xs, mine, strict=True)]
            lines = Line(f"{own}, two seeds", tuple(found)), Line("by chance", tuple(chance))
            charts.append(Chart("weights kept, %", up, lines, log="x", ticks=tuple(xs)))
    caption = "Bands: one standard deviation over pairs of seeds."
    return [chart_picture("overlap-seeds", "Masks of two seeds", caption, charts)] if charts else []


def _by_layer(rows: Sequence[Mapping[str, Any]]) -> Picture:
    layers = list(dict.fromkeys(n for row in rows for n in row["layers"]))
    heads = [_head(row) for row in rows]

    def square(row: Mapping[str, Any], name: str) -> tuple[str, float | None, bool]:
        if name not in row["layers"]:
            return "", None, False
        value, chance = row["layers"][name]
        share = (value - chance) / (1 - chance) if chance < 1 else 0.0
        return f"{value:.2f}\n({chance:.2f})", share, False

    def draw(figure: Figure, theme: Theme) -> None:
        from matplotlib.colors import Normalize

        norm, grid = Normalize(-1.0, 1.0), [[square(r, n) for n in layers] for r in rows]
        columns = [wrapped(n.removesuffix(".weight"), 14, 2) for n in layers]
        axes = squares(figure, theme, grid, heads, columns, norm)
        colour_bar(figure, axes, theme, norm, [-1, 0, 1], "above chance")

    caption = (
        "Jaccard index of two masks, mean over pairs; below it two independent masks with the "
        "same two densities. Colour: where between chance and identity it lies."
    )
    return picture_of("overlap-layers", "Overlap by layer", caption, draw)


def _head(row: Mapping[str, Any]) -> str:
    level = "" if row["across"] == "levels" else f" at {row['level']}"
    return f"{row['across']}: " + wrapped(f"{row['pair']}{level}", 22, 2)


def _table(rows: Sequence[Mapping[str, Any]]) -> Table:
    def both(row: Mapping[str, Any], measure: str) -> str:
        if measure not in row:
            return ""
        return f"{cell(row[measure], 3)} ({row[f'{measure}_chance']:.3f})"

    cells = tuple(
        (
            *(row["across"], row["pair"], str(row["level"]), f"{100 * row['kept']:.3g} %"),
            *(str(row["pairs"]), *(both(row, measure) for measure in MEASURES)),
        )
        for row in rows
    )
    columns = ("across", "masks", "level", "kept", "pairs", *MEASURES.values())
    note = "Mean ± one sample standard deviation over pairs, by chance in brackets."
    return Table("overlap", "How alike masks are", columns, cells, note, frozenset({0, 1}))
