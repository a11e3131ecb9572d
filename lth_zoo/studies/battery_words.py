"""What the battery says: each check beside the ticket, in a table, a picture and words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from ..jobs import DENSE, TICKET
from ..protocols import Yardstick
from ..recipe import Recipe
from ..report.dots import Dots, dots_picture
from ..report.tables import Table
from ..trials.cells import holm
from ..trials.findings import Control
from ..trials.results import margin_of
from ..trials.verdict import Verdict, judge
from .base import Answer, Measured
from .shared import cell, kept_share, mean_sd, signed, sparse, value_of

PASSES, FAILS, OPEN, TOLD, NOT = "passes", "fails", "open", "told", "not applicable"

#: check -> (what it destroys, what a pass means, what a failure means)
WORDS: dict[str, tuple[str, str, str]] = {
    "shuffle": (
        *("which weights of a layer", "which weights are kept matters"),
        "only the layers' densities matter",
    ),
    "reinit": (
        *("the initial weights", "the initial weights matter"),
        "the mask alone is enough",
    ),
    "random-global": (
        *("all but the size", "it is more than its size"),
        "any network of that size does",
    ),
    "random-erk": (
        *("all but the size", "it is more than densities by a rule"),
        "densities by a rule are enough",
    ),
    "inverted": (
        *("the scores' order", "the score ranks the weights"),
        "the score ranks nothing",
    ),
    "one-shot-init": (
        *("the search", "theta_0's largest weights are not the ticket"),
        "the search found nothing that theta_0 does not show",
    ),
    "one-shot": (
        *("the search", "the start's largest weights are not the ticket"),
        "the search found nothing that the start does not show",
    ),
    "one-shot-trained": (
        *("the rounds", "one shot of the trained network is not enough"),
        "one shot of the trained network is enough",
    ),
    "shuffle-weights": (
        *("each weight's value", "the single values matter"),
        "the values' distribution in each layer is enough",
    ),
    "smart-ratio": (
        *("all but the size", "it is more than densities by depth"),
        "densities by depth are enough",
    ),
    "hybrid": (
        *("the search", "it is more than magnitudes and a rule for densities"),
        "magnitudes and a rule for densities are enough",
    ),
    "random-labels": (
        *("labels in the search", "the search used the labels"),
        "a search on random labels does as well",
    ),
    "random-pixels": (
        *("labels and pixels in the search", "the search used the data"),
        "a search on noise does as well",
    ),
    "half-data": (
        *("half the data of the search", "the search needs all of the data"),
        "half of the data does as well",
    ),
    "equal-size": (
        *("the sparsity", "a small dense network is worse"),
        "a small dense network does",
    ),
    "equal-compute": (
        *("the sparsity", "dense is worse even when trained as long as the search"),
        "dense, trained as long as search and ticket, does as well",
    ),
    "random-graph": (
        *("which edges, which weights", "it is more than its two sizes"),
        "a random graph and network do",
    ),
    "random-edges": (
        *("which edges", "which edges are kept matters"),
        "random edges do",
    ),
}
#: Any other is a rewind rule.
_REWIND = ("the rewind rule", "", "")
#: A second panel shows what is within so many margins of the ticket, where not all is.
NEAR = 4
#: Checks that tell something of a ticket and are no accusation, whatever they give.
TELLS = ("half-data",)


def answered(recipe: Recipe, by: Yardstick, measured: Sequence[Measured]) -> Answer:
    """Return the answer to a battery's measurements; ``left`` of a dense run says what is not."""
    arms: dict[str, dict[int, Measured]] = {}
    for one in measured:
        arms.setdefault(one.of["arm"], {})[one.of["seed"]] = one
    looks = {name: list(arms.pop(name, {}).values()) for name in ("integrity", "paths")}
    values = {a: {s: value_of(m, by) for s, m in runs.items()} for a, runs in arms.items()}
    plan: Mapping[str, Any] = next(
        (m.of for m in measured if "left" in m.of), {"left": {}, "asked": ()}
    )
    dense, ticket = values.pop(DENSE, {}), values.pop(TICKET, {})
    margin, _ = margin_of(by, dense.values())
    verdict = judge(
        *(dense, ticket, values),
        margin=margin,
        higher_is_better=by.higher_is_better,
        paired=recipe.compare == "paired",
        validation={n: {s: _validation(m, by) for s, m in arms[n].items()} for n in values},
    )
    rows = [_integrity(looks["integrity"]), _paths(looks["paths"])]
    ps = holm([control.against.p_better for control in verdict.controls])
    for control, p in zip(verdict.controls, ps, strict=True):
        same = _same(arms[control.name], arms.get(TICKET, {}))
        rows.append(_row(control, p, values[control.name], verdict.alpha, same))
    rows += [_blank(n, "did not end: see what failed") for n in plan["asked"] if n not in values]
    rows += [_blank(name, why) for name, why in plan["left"].items()]
    tickets = list(arms.get(TICKET, {}).values())
    kept, edges = kept_share(tickets), kept_share(tickets, edges=True)
    findings = _said(rows, verdict, sparse(tickets))
    blocks = (_table(rows, ticket, dense, by), *_picture(rows, ticket, dense, by, margin))
    data = {
        "headline": by.headline,
        "margin": margin,
        "sparsity": None if kept is None else 1 - kept,
        "graph_sparsity": None if edges is None else 1 - edges,
        "dense": dense,
        "ticket": ticket,
        "checks": rows,
        "verdict": verdict.to_json(),
    }
    return Answer(tuple(findings), blocks, data)


def _validation(one: Measured, by: Yardstick) -> float:
    return float(one.result["metrics"]["validation"][by.headline])


def _row(
    control: Control, p: float, values: Mapping[int, float], alpha: float, same: bool
) -> dict[str, Any]:
    """Return a control's row: the least flattering result that holds, as in a verdict."""
    destroys, good, bad = WORDS.get(control.name, _REWIND)
    result, says = OPEN, f"undecided, n = {len(values)}"
    better = p <= alpha
    if same and control.name.startswith("one-shot"):
        result, says = NOT, "it is the ticket itself, seed by seed"
    elif control.name not in WORDS:
        result, says = TOLD, "the ticket's own rule is better" if better else "no difference shown"
        if control.against.p_worse <= alpha:
            says = "this rule is better (uncorrected)"
    elif control.as_good:
        result = TOLD if control.name in TELLS else FAILS
        says = f"{bad}: it is the same to the bit" if same else bad
    elif better:
        result, says = PASSES, good
    return {
        **{"check": control.name, "destroys": destroys, "result": result, "says": says},
        **{"values": values, "p": p, "p_as_good": control.p_as_good},
        "difference": control.against.difference,
        "interval": control.against.interval,
    }


def _same(runs: Mapping[int, Measured], tickets: Mapping[int, Measured]) -> bool:
    shared = [seed for seed in runs if seed in tickets]
    measures = [(runs[s].result["metrics"], tickets[s].result["metrics"]) for s in shared]
    return bool(measures) and all(a == b for a, b in measures)


def _blank(name: str, why: str) -> dict[str, Any]:
    destroys = WORDS.get(name, _REWIND)[0]
    return {"check": name, "destroys": destroys, "result": NOT, "says": why}


def _integrity(looks: Sequence[Measured]) -> dict[str, Any]:
    """Return whether pruned weights are 0, kept ones the start's, and the counts exact."""
    found = [look.result for look in looks]
    about = {"check": "mask integrity", "destroys": ""}
    if not found:
        return about | {"result": NOT, "says": "it was not looked at: see what failed"}
    totals = {
        name: sum(one[name] or 0 for one in found)
        for name in ("revived", "revived_on_the_way", "moved", "miscounted", "steps")
    }
    wrong = {
        "pruned weights not 0 after training": totals["revived"],
        "not 0 at the start or after a step": totals["revived_on_the_way"],
        "kept weights not the start's": totals["moved"],
        "kept too many or too few": totals["miscounted"],
    }
    if any(wrong.values()):
        says = "; ".join(f"{what}: {count:,}" for what, count in wrong.items() if count)
    else:
        after = ["after training"] if all(one["revived"] is not None for one in found) else []
        after += [f"over {totals['steps']} steps"] if totals["steps"] else []
        counted = all(one["miscounted"] is not None for one in found)
        count = "exact count" if counted else "no count was asked for"
        says = f"exact zeros {' and '.join(after)}, start kept to the bit, {count}"
    result = FAILS if any(wrong.values()) else PASSES
    return about | {"result": result, "says": says, "counts": totals, "n": len(found)}


def _paths(looks: Sequence[Measured]) -> dict[str, Any]:
    """Return how sparse the masks are without dead paths."""
    found = [look.result for look in looks]
    about = {"check": "effective sparsity", "destroys": ""}
    if not found or any(one["effective"] is None for one in found):
        why = "the family does not say how the model's layers are wired"
        return about | {"result": NOT, "says": why}
    plain = [100 * (1 - one["kept"] / one["size"]) for one in found]
    real = [100 * (1 - one["effective"] / one["size"]) for one in found]
    dead = 100 * (1 - sum(o["effective"] for o in found) / max(1, sum(o["kept"] for o in found)))
    cut = any(one["effective"] == 0 for one in found)
    says = f"{cell(real)} % without dead paths; {dead:.1f} % of the kept weights compute nothing"
    says = "no path leads from input to output in some seed" if cut else says
    numbers = {"effective": real, "sparsity": plain, "dead": dead}
    return about | {"result": FAILS if cut else TOLD, "says": says, **numbers}


def _said(rows: Sequence[Mapping[str, Any]], verdict: Verdict, size: str) -> list[str]:
    def named(result: str) -> str:
        return ", ".join(row["check"] for row in rows if row["result"] == result) or "none"

    alone = replace(verdict, notes=()).sentence  # its notes are of uncorrected tests
    said = [
        f"{f'{size}. ' if size else ''}This level by itself: {alone}.",
        f"Passes: {named(PASSES)}. Fails: {named(FAILS)}. Open: {named(OPEN)}. "
        f"Not applicable: {named(NOT)}.",
    ]
    said += [f"{r['check']} fails: {r['says']}." for r in rows if r["result"] == FAILS]
    n = min(verdict.ticket.n, verdict.dense.n)
    said.append(
        f"A check passes where the ticket is better than it at 5 %, Holm over "
        f"{len(verdict.controls)} comparisons, n = {n} seeds; it fails where what is left is not "
        f"worse than the ticket by the task's margin of {verdict.margin:g}."
    )
    return said


def _p(p: float) -> str:
    """Return a p-value with three digits.

    >>> _p(0.0004), _p(0.0456)
    ('<0.001', '0.046')
    """
    return "<0.001" if p < 0.001 else f"{p:.3f}"


def _table(
    rows: Sequence[Mapping[str, Any]],
    ticket: Mapping[int, float],
    dense: Mapping[int, float],
    by: Yardstick,
) -> Table:
    cells = [
        (
            row["check"],
            row["destroys"],
            row["result"],
            cell(row["values"].values()) if "values" in row else "",
            signed(row.get("difference"), row.get("interval")),
            _p(row["p"]) if "p" in row else "",
            row["says"],
        )
        for row in rows
    ]
    for name, values in ((TICKET, ticket), (DENSE, dense)):
        cells.insert(0, (name, "", "", cell(values.values()) if values else "", "", "", ""))
    heads = ("check", "what it destroys", "result", f"test {by.headline}")
    columns = (*heads, "ticket - check", "p", "that is")
    note = (
        f"Mean ± one sample standard deviation, n = {len(ticket)} seeds; differences paired by "
        "seed with 95 % intervals, each by itself; p that the ticket is no better, by Holm over "
        "all checks."
    )
    return Table("battery", "Sanity checks", columns, tuple(cells), note, frozenset({0, 1, 2, 6}))


def _picture(
    rows: Sequence[Mapping[str, Any]],
    ticket: Mapping[int, float],
    dense: Mapping[int, float],
    by: Yardstick,
    margin: float,
) -> list[Any]:
    """Return every check's measure as dots on the ticket's and the dense network's."""
    shown = [row for row in rows if "values" in row]
    if not shown or not ticket or not dense:
        return []
    lines = {DENSE: mean_sd(dense.values()), TICKET: mean_sd(ticket.values())}
    every = {row["check"]: mean_sd(row["values"].values()) for row in shown}
    near = {n for n, (mean, _) in every.items() if abs(mean - lines[TICKET][0]) <= NEAR * margin}
    panels = []
    for names, title in ((set(every), "all"), (near, f"within {NEAR} margins of the ticket")):
        series: dict[str, dict[str, tuple[float, float]]] = {}
        for row in shown:
            if row["check"] in names:
                series.setdefault(row["result"], {})[row["check"]] = every[row["check"]]
        panels.append(Dots(f"test {by.headline}", series, lines, title=title, apart=False))
    panels = panels if near and near != set(every) else panels[:1]
    arms = (DENSE, TICKET, FAILS, PASSES, NOT, OPEN, TOLD)
    caption = f"Dots and bands: mean and one standard deviation, n = {len(ticket)} seeds."
    title = f"Test {by.headline} after each check, beside ticket and dense"
    return [dots_picture("battery", title, caption, panels, list(every), arms)]
