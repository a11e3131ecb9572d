"""What a report says of a transfer matrix besides its figures: findings, tables, limits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from lth_zoo.trials.cells import Cell, Judged, Target, TransferResults

from .costs import duration, flat
from .heatmap import (
    MATCHES,
    SAME_TASK,
    decimals_of,
    marks_of,
    marks_said,
    rows_of,
    source_at,
    wrapped,
)
from .series import margin_said
from .tables import NONE, Table, probability, yes_no
from .transfer_words import TASKS, asked, counted, names_of, no_worse, rule
from .transfer_words import transfer_limits as transfer_limits
from .transfer_words import transfer_name as transfer_name

if TYPE_CHECKING:
    import rich.table

    from lth_zoo.trials.compare import Comparison


def transfer_findings(results: TransferResults, judged: Sequence[Judged]) -> tuple[str, ...]:
    """Return what was found, in one sentence each, then the remarks."""
    others = [j for j in judged if j.against_ticket is not None]
    tested = [j for j in others if j.p_differs is not None]
    names, lines = names_of(results), [asked(results)]
    if tested:
        counts = {
            f"as good as {names.own}": sum(j.as_good for j in tested),
            "significantly better": sum(j.better for j in tested),
            "significantly worse": sum(j.worse for j in tested),
        }
        said = ", ".join(f"{n} {what}" for what, n in counts.items())
        undecided = sum(marks_of(j) == "?" for j in tested)
        lines.append(
            f"Of {len(tested)} {names.others}: {said}; {undecided} undecided "
            f"(Holm-corrected at {100 * judged[0].alpha:g} %)."
        )
        matching = [j for j in judged if j.matches]
        to = names.on if results.of_backbones else "to"
        shown = ", ".join(f"{j.source} {to} {j.target}" for j in matching[:6])
        more = f" and {len(matching) - 6} more" if len(matching) > 6 else ""
        lines.append(f"Shown to match dense: {shown}{more}." if matching else "No cell matches.")
    else:
        lines.append("Fewer than two seeds a cell: no spread is known, so no cell has a mark.")
    ruled = [j for j in others if j.at_least_ticket is not None]
    lines.append(rule(results, sum(bool(j.at_least_ticket) for j in ruled), len(ruled)))
    if rows := _troubles(results):
        lines.append(f"{counted(len(rows), 'run')} failed; see the list.")
    still = [j for j in tested if j.against_ticket and j.against_ticket.se == 0 and not j.as_good]
    if still:
        named = ", ".join(f"{j.source} {names.on} {j.target}" for j in still)
        lines.append(f"Differences without any spread over seeds decide by their size: {named}.")
    if stuck := [c for c in _every(results) if c.constant]:
        named = ", ".join(f"{c.source} {names.on} {c.target}" for c in stuck[:6])
        more = f" and {len(stuck) - 6} more" if len(stuck) > 6 else ""
        lines.append(
            f"Networks that answer one thing whatever they are asked: {named}{more}. A match with "
            "or of such a network says nothing about masks."
        )
    return (*lines, *results.notes)


def means_table(results: TransferResults, judged: Sequence[Judged]) -> Table:
    """Return the headline test metric: dense above, then source x target, mean ± sd (n)."""
    cells = {(j.source, j.target): j for j in judged}
    columns = tuple(f"{t.name} ({t.headline})" for t in results.targets)
    dense = tuple(_summary(t.dense, t) for t in results.targets)
    rows = [("dense", *dense)]
    for row in rows_of(results):
        line = []
        for target in results.targets:
            if row == SAME_TASK and target.name in results.sources:
                line.append(NONE)
                continue
            found = cells[source_at(row, target.name), target.name]
            text = found.arm.text(decimals_of(target) + 1)
            line.append(text if found.arm.mean is not None else _why(results, found))
        rows.append((row, *line))
    note = "Mean ± sample standard deviation over seeds, of the test part."
    heads = (names_of(results).row, *columns)
    return Table("transfer", "Metric of every cell", heads, tuple(rows), note)


def cells_table(results: TransferResults, judged: Sequence[Judged]) -> Table:
    """Return one row a cell: both differences, their intervals, marks, and the mean rule."""
    targets, names = {t.name: t for t in results.targets}, names_of(results)
    ruled = f"{no_worse(results)[0]} {names.short}"
    rows = []
    for found in judged:
        target = targets[found.target]
        digits = decimals_of(target) + 1
        cell = results.cell(found.source, found.target)
        own = found.against_ticket is None
        mark = names.short if own else marks_of(found) or NONE
        rows.append(
            (
                *(found.source, found.target),
                *_difference(found.against_dense, digits),
                *(MATCHES if found.matches else NONE, _p(found.p_matches)),
                *_difference(found.against_ticket, digits),
                *(mark, _p(found.p_differs), _p(found.p_as_good), yes_no(found.at_least_ticket)),
                *_kept(results, cell),
            )
        )
    columns = (
        *(names.row, names.on, "less dense", "interval", MATCHES, "p match"),
        *(f"less {names.short}", "interval", "mark", "p differs", "p as good", ruled),
        *_kept(results, None),
    )
    chen = "the rule of Chen et al. 2020, " if names is TASKS else ""
    note = (
        f"Intervals are of each cell alone; every p is corrected by Holm's method over the cells "
        f"that can answer its question. {MATCHES}: shown to be no worse than dense by the "
        f"{names.column}'s margin. {marks_said(names)}. {ruled}: {chen}by the means alone."
    )
    return Table("cells", "Every cell, judged", columns, tuple(rows), note, frozenset({0, 1}))


def _kept(results: TransferResults, cell: Cell | None) -> list[str]:
    """Return what a cell keeps of weights and of edges, where they are pruned; None: the heads."""
    edges = any(c.kept_edges is not None for c in results.cells)
    shown = {"kept": not results.of_backbones, "edges": edges}
    if cell is None:
        return [head for head, there in shown.items() if there]
    amounts = {"kept": cell.kept, "edges": cell.kept_edges}
    every = [amounts[head] for head, there in shown.items() if there]
    return [NONE if amount is None else f"{amount:,.0f}" for amount in every]


def _difference(found: Comparison | None, digits: int) -> tuple[str, str]:
    if found is None or found.difference is None:
        return NONE, NONE
    interval = found.interval
    shown = f"[{interval[0]:+.{digits}f}, {interval[1]:+.{digits}f}]" if interval else NONE
    return f"{found.difference:+.{digits}f}", shown


def _p(value: float | None) -> str:
    return NONE if value is None else probability(value)


def targets_table(results: TransferResults) -> Table:
    """Return what each target measures, its margin and its dense network."""
    rows = tuple(
        (
            *(t.name, t.headline, "higher" if t.higher_is_better else "lower"),
            *(margin_said(t.margin, t.margin_share), _summary(t.dense, t)),
        )
        for t in results.targets
    )
    column = names_of(results).column
    columns = (column, "metric", "better", "margin", "dense")
    title = f"{column.capitalize()}s"
    return Table("targets", title, columns, rows, words=frozenset({0, 1, 2}))


def overlap_table(results: TransferResults) -> Table:
    """Return the Jaccard index of every pair of sources, whole and by role, beside chance."""
    roles = list(dict.fromkeys(role for found in results.overlaps for role in found.roles))
    parts = roles if len(roles) > 1 else []
    rows = [
        (
            *(found.a, found.b, str(found.n), *_pair(found.whole)),
            *(c for role in parts for c in _pair(found.roles.get(role))),
        )
        for found in results.overlaps
    ]
    columns = ["mask of", "and of", "seeds", "Jaccard", "by chance"]
    columns += [c for role in parts for c in (role, f"{role} by chance")]
    names = names_of(results)
    note = (
        f"Kept by both / kept by either, of the {names.overlap}. By chance: independent random "
        f"masks with {names.chance}."
    )
    words = frozenset({0, 1})
    return Table("overlap", "Overlap of masks", tuple(columns), tuple(rows), note, words)


def overlap_layers_table(results: TransferResults) -> Table:
    """Return the overlap tensor by tensor, over the pairs of searched sources; none for edges."""
    found = () if results.of_backbones else results.overlaps
    pairs = [o for o in found if "one-shot" not in (o.a, o.b)] or found
    names = list(dict.fromkeys(name for found in pairs for name in found.layers))
    rows = []
    for name in names:
        known = [found.layers[name] for found in pairs if name in found.layers]
        values = [jaccard for jaccard, _ in known]
        chance = sum(c for _, c in known) / len(known)
        mean = sum(values) / len(values)
        spread = f"{min(values):.3f} to {max(values):.3f}"
        rows.append((name, f"{mean:.3f}", spread, f"{chance:.3f}"))
    columns = ("tensor", "mean Jaccard", "over pairs", "by chance")
    note = "Over all pairs of searched sources; each pair's own is in report.json."
    return Table("overlap-layers", "Overlap by tensor", columns, tuple(rows), note)


def _pair(pair: tuple[float, float] | None) -> tuple[str, str]:
    return (f"{pair[0]:.3f}", f"{pair[1]:.3f}") if pair else (NONE, NONE)


def trouble_table(results: TransferResults) -> Table:
    """Return every run that failed or is flagged."""
    rows = _troubles(results)
    for cell in _every(results):
        flagged = [(r.seed, ", ".join(r.flags)) for r in cell.runs if r.flags and not r.error]
        rows += [(cell.source, cell.target, str(seed), "flagged", what) for seed, what in flagged]
    names = names_of(results)
    columns = (names.row, names.on, "seed", "status", "why")
    note = "Failed runs are in no mean above; flagged ones are."
    words = frozenset({0, 1, 3, 4})
    return Table("trouble", "Failed and flagged runs", columns, tuple(rows), note, words)


def _troubles(results: TransferResults) -> list[tuple[str, ...]]:
    return [
        (cell.source, cell.target, str(seed), "failed", " ".join(error.split()))
        for cell in _every(results)
        for seed, error in cell.errors.items()
    ]


def _every(results: TransferResults) -> list[Cell]:
    return [*(t.dense for t in results.targets), *results.cells]


def transfer_recipe_table(results: TransferResults) -> Table:
    """Return every field of the searches' recipe, and what all of it cost."""
    hidden = names_of(results).hidden
    rows = tuple((k, v) for k, v in flat(results.recipe) if k not in hidden)
    cost = results.cost
    note = ""
    if cost:
        note = (
            f"{cost['searches']:,.0f} searches, {cost['jobs']:,.0f} jobs, "
            f"{cost['iterations_total']:,.0f} iterations in {duration(cost['seconds_total'])}."
        )
    rows = (("carry", results.carry), *rows)
    return Table("recipe", "Recipe", ("field", "value"), rows, note, frozenset({0, 1}))


def _summary(cell: Cell, target: Target) -> str:
    from lth_zoo.trials.findings import Arm

    return Arm.of(cell.values).text(decimals_of(target) + 1)


def _why(results: TransferResults, found: Judged) -> str:
    if found.arm.diverged:
        return "diverged"
    return "failed" if results.cell(found.source, found.target).errors else "not run"


def text_matrix(results: TransferResults, judged: Sequence[Judged]) -> rich.table.Table:
    """Return the matrix for the terminal: mean, the difference from dense, and the marks."""
    import rich.box
    import rich.table

    cells, names = {(j.source, j.target): j for j in judged}, names_of(results)
    than = f"▲ better, ▼ worse, ≈ as good as {names.short}"
    table = rich.table.Table(
        title=f"{transfer_name(results)}: mean, less dense, less {names.short}",
        caption=f"{MATCHES} matches dense; {than}; ? undecided",
        box=rich.box.SIMPLE_HEAD,
        pad_edge=False,
    )
    table.add_column(names.row)
    for target in results.targets:
        table.add_column(f"{wrapped(target.name, 22, 3)}\n{target.headline}", justify="right")
    table.add_row("dense", *(_summary(t.dense, t) for t in results.targets))
    for row in rows_of(results):
        table.add_row(row, *(_line(results, cells, row, target) for target in results.targets))
    return table


def _line(
    results: TransferResults, cells: dict[tuple[str, str], Judged], row: str, target: Target
) -> str:
    if row == SAME_TASK and target.name in results.sources:
        return ""
    found = cells[source_at(row, target.name), target.name]
    if found.arm.mean is None:
        return _why(results, found)
    digits = decimals_of(target)
    against = [_difference(c, digits)[0] for c in (found.against_dense, found.against_ticket) if c]
    marks = (MATCHES if found.matches else "") + marks_of(found)
    return " ".join(filter(None, [f"{found.arm.mean:.{digits}f}", *against, marks]))
