"""The tables of a report as plain text cells, and their Markdown and terminal forms."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lth_zoo.trials.results import TICKET, Results, Run

from . import series
from .amounts import left_cells, left_heads, sparsity_cells, sparsity_heads
from .panels import percent

if TYPE_CHECKING:
    import rich.table

    from lth_zoo.trials.compare import Comparison
    from lth_zoo.trials.verdict import Control, LevelVerdict

NONE = "—"
#: How a page or a terminal colours a word.
TONES = {
    "WINNING": "good",
    "MATCHING": "good",
    "INIT-FREE": "unsure",
    "LAYERWISE-ONLY": "unsure",
    "INCONCLUSIVE": "unsure",
    "FAIL": "bad",
    "failed": "bad",
    "flagged": "unsure",
    "not measured": "unsure",
}


@dataclass(frozen=True)
class Table:
    """Cells as text; ``words`` are the columns to set flush left."""

    name: str
    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""
    words: frozenset[int] = frozenset({0})


def to_markdown(table: Table) -> str:
    """Return a table as GitHub Markdown, title and note included."""
    rule = [":--" if i in table.words else "--:" for i in range(len(table.columns))]
    lines = [table.columns, rule, *table.rows]
    cells = ["| " + " | ".join(c.replace("|", "\\|") for c in line) + " |" for line in lines]
    note = ["", table.note] if table.note else []
    return "\n".join([f"### {table.title}", "", *cells, *note, ""])


def to_text(table: Table) -> rich.table.Table:
    """Return a table for the terminal."""
    import rich.box
    import rich.table
    from rich.text import Text

    found = rich.table.Table(
        title=Text(table.title), caption=table.note, box=rich.box.SIMPLE_HEAD, pad_edge=False
    )
    for i, column in enumerate(table.columns):
        found.add_column(column, justify="left" if i in table.words else "right")
    for row in table.rows:
        found.add_row(*map(Text, row))
    return found


def number(value: float, digits: int) -> str:
    """Return a number with fixed decimals; a dash where it is not finite.

    >>> number(98.256, 2), number(float("nan"), 2)
    ('98.26', '—')
    """
    return f"{value:.{digits}f}" if math.isfinite(value) else NONE


def accuracy_table(results: Results) -> Table:
    """Return the headline test metric, level x arm: mean ± sample sd (n)."""
    digits, edges = series.decimals(results), results.prunes_edges
    arms = results.arms()
    found = {arm: {p.level: p for p in series.points(results, arm)} for arm in arms}
    counts = [p.n for points in found.values() for p in points.values()]
    usual = statistics.mode(counts) if counts else 0
    rows = []
    for level in results.levels():
        at = [found[arm].get(level) for arm in arms]
        left = left_cells(next(filter(None, at), None), edges, NONE)
        cells = [mean_cell(p, digits, usual=usual) if p else NONE for p in at]
        rows.append((str(level), *left, *cells))
    if (real := series.floor(results)) is not None:
        none = left_cells(None, edges, NONE)
        rows.append(("real against real", *none, *([number(real, digits)] * len(arms))))
    better = "higher" if results.higher_is_better else "lower"
    note = (
        f"Mean ± one sample standard deviation; {series.seeds_phrase([usual])}, or the number in "
        f"parentheses; {better} is better. {NONE}: not run or nothing finite."
        + " The two shares are the ticket's; an arm may keep all of one."
        * edges
    )
    title = f"Test {results.headline} by level and arm"
    columns = ("level", *left_heads(edges), *arms)
    return Table("accuracy", title, columns, tuple(rows), note, frozenset())


def mean_cell(point: series.Point, digits: int, usual: int = 0) -> str:
    """Return ``98.10 ± 0.07 (n=5)``: mean, sd where there is one, n unless it is the usual."""
    spread = f" ± {number(point.sd, digits)}" if point.n > 1 else ""
    count = f" (n={point.n})" if point.n != usual else ""
    return f"{number(point.mean, digits)}{spread}{count}"


def trouble_table(results: Results) -> Table:
    """Return the runs that failed, were degenerate, or gave no finite headline metric."""
    rows = []
    for run in results.runs:
        what = _trouble(run, results)
        if what:
            rows.append((run.arm, str(run.level), str(run.seed), *what))
    columns = ("arm", "level", "seed", "status", "why")
    note = "Failed and diverged runs are in no mean above; runs with other flags are."
    words = frozenset({0, 3, 4})
    return Table("trouble", "Failed and flagged runs", columns, tuple(rows), note, words)


def _trouble(run: Run, results: Results) -> tuple[str, str] | None:
    if run.error:
        return "failed", " ".join(run.error.split())
    if run.flags:
        return "flagged", ", ".join(run.flags)
    if not math.isfinite(series.headline(run, results)):
        return "not measured", f"no finite test {results.headline}"
    return None


def verdict_table(results: Results, verdicts: Sequence[LevelVerdict]) -> Table:
    """Return what is claimed at each level, the difference from dense and the field's rules."""
    digits = series.decimals(results)
    rows = tuple(_verdict_row(results, level, digits) for level in verdicts)
    heads = (*sparsity_heads(results.prunes_edges), *_kept_heads(results))
    columns = (
        *("level", *heads, "verdict", "ticket - dense"),
        *(f"{_level_of_trust(verdicts)} interval", "p", "in 1 sd", f"{_no_worse(results)} dense"),
    )
    title = "Verdicts: the ticket against dense"
    note = _verdict_note(results, verdicts)
    return Table("verdicts", title, columns, rows, note, frozenset({1 + len(heads)}))


def _no_worse(results: Results) -> str:
    return "≥" if results.higher_is_better else "≤"


def _kept_heads(results: Results) -> tuple[str, ...]:
    tickets = [run for run in results.runs if run.arm == TICKET]
    weights = next((f" of {run.prunable:,}" for run in tickets), "")
    if not results.prunes_edges:
        return (f"kept{weights}",)
    edges = next((f" of {run.edges[1]:,}" for run in tickets if run.edges), "")
    return f"weights kept{weights}", f"edges kept{edges}"


def _kept_cells(results: Results, level: int) -> tuple[str, ...]:
    """Return the first seed's kept weights, and edges where the recipe prunes them."""
    run = next(iter(results.select(TICKET, level)), None)
    weights = f"{run.kept:,}" if run else NONE
    edges = f"{run.edges[0]:,}" if run and run.edges else NONE
    return (weights, edges) if results.prunes_edges else (weights,)


def _verdict_row(results: Results, found: LevelVerdict, digits: int) -> tuple[str, ...]:
    verdict, rules = found.verdict, found.verdict.field_rules
    return (
        str(found.level),
        *sparsity_cells(found, results.prunes_edges),
        *_kept_cells(results, found.level),
        str(found.name),
        *_difference(verdict.against, digits),
        probability(verdict.p_noninferior),
        yes_no(rules.within_one_dense_sd),
        yes_no(rules.at_least_dense),
    )


def _verdict_note(results: Results, verdicts: Sequence[LevelVerdict]) -> str:
    if not verdicts:
        return ""
    verdict = verdicts[0].verdict
    return (
        f"Margin {series.margin_said(results.margin, results.margin_share)}. "
        f"p: {verdict.against.test} one-sided t test that the ticket "
        f"is not worse than dense by the margin, level after level until one fails (alpha "
        f"{verdict.alpha:g}). In 1 sd (of dense) and {_no_worse(results)} dense are the rules the "
        "field uses."
    )


def remarks_table(verdicts: Sequence[LevelVerdict]) -> Table:
    """Return what is degenerate or held back, each remark once with the levels it is about."""
    levels: dict[str, list[str]] = {}
    for found in verdicts:
        for remark in filter(None, [found.note, *found.verdict.flags]):
            levels.setdefault(remark, []).append(str(found.level))
    rows = tuple((remark, ", ".join(at)) for remark, at in levels.items())
    words = frozenset({0, 1})
    return Table("remarks", "Remarks on the verdicts", ("remark", "levels"), rows, words=words)


def controls_table(results: Results, verdicts: Sequence[LevelVerdict]) -> Table:
    """Return the ticket less each control at each level, with its interval and what it shows."""
    digits = series.decimals(results)
    names = series.controls(results)
    rows = []
    for found in verdicts:
        by = {control.name: control for control in found.verdict.controls}
        cells = [_against(by[name], digits) if name in by else NONE for name in names]
        sparsity = sparsity_cells(found, results.prunes_edges)
        rows.append((str(found.level), *sparsity, str(found.name), *cells))
    trust = _level_of_trust(verdicts)
    note = (
        f"Difference of the means ± half its {trust} interval. ▲: the ticket is significantly "
        "better; ≈: the control is non-inferior to the ticket by the margin; ?: neither is shown."
    )
    heads = sparsity_heads(results.prunes_edges)
    columns, words = ("level", *heads, "verdict", *names), frozenset({1 + len(heads)})
    shown = tuple(rows) if names else ()
    return Table("controls", "The ticket less each control", columns, shown, note, words)


def _against(control: Control, digits: int) -> str:
    marks = ("▲" if control.better else "") + ("≈" if control.as_good else "")
    found = control.against
    half = f" ± {(found.interval[1] - found.interval[0]) / 2:.{digits}f}" if found.interval else ""
    return f"{_difference(found, digits)[0]}{half} {marks or '?'}"


def _difference(found: Comparison, digits: int) -> tuple[str, str]:
    if found.difference is None:
        return NONE, NONE
    interval = found.interval
    shown = f"[{interval[0]:+.{digits}f}, {interval[1]:+.{digits}f}]" if interval else NONE
    return f"{found.difference:+.{digits}f}", shown


def _level_of_trust(verdicts: Sequence[LevelVerdict]) -> str:
    alpha = verdicts[0].verdict.alpha if verdicts else 0.05
    return f"{100 * (1 - alpha):g} %"


def probability(p: float) -> str:
    """Return a p-value.

    >>> probability(0.0004), probability(0.0312)
    ('<0.001', '0.031')
    """
    return "<0.001" if p < 0.001 else f"{p:.3f}"


def yes_no(value: bool | None) -> str:
    """Return yes, no, or a dash for unknown."""
    return NONE if value is None else "yes" if value else "no"


def text_table(results: Results, verdicts: Sequence[LevelVerdict]) -> rich.table.Table:
    """Return the verdicts as a table for the terminal, coloured; one line a level in 80 columns."""
    import rich.box
    import rich.table
    from rich.text import Text

    digits = series.decimals(results)
    dense = verdicts[0].verdict.dense.text(digits) if verdicts else NONE
    title = f"{recipe_name(results)}: test {results.headline}, dense {dense}"
    edges = results.prunes_edges
    left = "w %, e %: weights, edges left" if edges else "left: % of prunable weights"
    note = f"{left}; diff: ticket - dense; beats: of the controls"
    box = rich.box.SIMPLE_HEAD
    table = rich.table.Table(title=Text(title), caption=note, box=box, pad_edge=False)
    table.padding = (0, 1, 0, 0)
    trust = _level_of_trust(verdicts)
    heads = ("w %", "e %") if edges else ("left",)
    for name in ("#", *heads, "verdict", "ticket", "diff", trust, "p", "beats"):
        table.add_column(name, justify="left" if name == "verdict" else "right")
    for found in verdicts:
        verdict = found.verdict
        difference, interval = _difference(verdict.against, digits)
        table.add_row(
            str(found.level),
            percent(1 - found.sparsity),
            *([percent(1 - (found.graph_sparsity or 0.0))] if edges else []),
            Text(found.name, style=_STYLES.get(TONES.get(found.name, ""), "")),
            verdict.ticket.text(digits).partition(" (")[0],
            difference,
            Text(interval),
            probability(verdict.p_noninferior),
            f"{sum(control.better for control in verdict.controls)}/{len(verdict.controls)}",
        )
    return table


_STYLES = {"good": "bold green", "bad": "bold red", "unsure": "yellow"}


def recipe_name(results: Results) -> str:
    """Return the recipe's name, or model and task where it has none."""
    recipe = results.recipe
    title = " on ".join(str(recipe[k]) for k in ("model", "task") if recipe.get(k))
    return str(recipe.get("name") or title or "recipe")
