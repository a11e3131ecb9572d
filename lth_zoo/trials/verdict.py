"""Does the ticket match dense, and is it more than its mask's layer densities?

:func:`judge` decides about one level from plain numbers, :func:`judge_levels` about every
level of a finished recipe. The rules are explained in ``docs/verdicts.md``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from statistics import fmean

from lth_zoo.errors import BadInput

from .compare import Comparison, compare, finite, usable
from .findings import Arm, Control, FieldRules, LevelVerdict, Outcome, Values, Verdict
from .power import seeds_needed
from .results import DENSE, TICKET, Results, Run

__all__ = [
    "Arm",
    "Control",
    "FieldRules",
    "LevelVerdict",
    "Outcome",
    "Verdict",
    "field_rules",
    "judge",
    "judge_levels",
]

SHUFFLE, REINIT = "shuffle", "reinit"
#: Controls of which a winning ticket must beat the best.
RANDOMS = ("random-global", "random-erk", "random-layer", "smart-ratio", "random-graph")
#: Where a ticket prunes edges too: searched weights on random edges, to be beaten where it ran.
RANDOM_EDGES = "random-edges"


def judge(
    dense: Values,
    ticket: Values,
    controls: Mapping[str, Values] | None = None,
    *,
    margin: float,
    higher_is_better: bool = True,
    paired: bool = True,
    alpha: float = 0.05,
    validation: Mapping[str, Values] | None = None,
) -> Verdict:
    """Judge a ticket; every arm is seed -> test metric.

    ``controls`` maps a control to its arm; ``validation`` the random controls to their
    validation metric, by which the best of them is picked (without it the ticket must beat
    them all). A diverged run is a value that is not finite; a run that is missing is absent.

    Raises:
        BadInput: the margin is not a positive number or alpha not between 0 and 0.5.
    """
    if not (usable(margin) and margin > 0):
        raise BadInput(f"margin {margin!r} must be a positive number")
    if not 0 < alpha < 0.5:
        raise BadInput(f"alpha {alpha!r} must be between 0 and 0.5")
    controls = controls or {}

    def against(other: Values) -> Comparison:
        return compare(ticket, other, paired=paired, alpha=alpha, higher_is_better=higher_is_better)

    gap = against(dense)
    tested = tuple(_control(n, v, against(v), margin, alpha) for n, v in controls.items())
    rivals, remark = _best_random(controls, validation or {}, 1 if higher_is_better else -1)
    found = Verdict(
        name=Outcome.INCONCLUSIVE,
        dense=Arm.of(dense),
        ticket=Arm.of(ticket),
        against=gap,
        p_noninferior=gap.p_gain_above(-margin),
        controls=tested,
        rivals=rivals,
        field_rules=field_rules(dense, ticket, higher_is_better=higher_is_better),
        power=gap.power(margin, alpha),
        seeds_needed=_seeds_needed(gap, margin, alpha),
        flags=_flags({DENSE: dense, TICKET: ticket, **controls}, gap, tested),
        notes=(),
        margin=margin,
        alpha=alpha,
        higher_is_better=higher_is_better,
    )
    found = replace(found, name=_outcome(found))
    return replace(found, notes=_notes(found, remark))


def _control(
    name: str, values: Values, against: Comparison, margin: float, alpha: float
) -> Control:
    arm = Arm.of(values)
    p_as_good = against.p_gain_below(margin)
    as_good = p_as_good <= alpha and not arm.diverged
    return Control(name, arm, against, p_as_good, against.p_better <= alpha, as_good)


def _best_random(
    controls: Mapping[str, Values], validation: Mapping[str, Values], sign: int
) -> tuple[tuple[str, ...], str]:
    """Return the random controls to beat, and how they were picked."""
    present = tuple(name for name in RANDOMS if name in controls)
    if len(present) < 2:
        return present, ""
    if not all(finite(validation.get(name, {})) for name in present):
        return present, "no validation metric of every random mask, so all must be beaten"
    best = max(present, key=lambda name: sign * fmean(finite(validation[name]).values()))
    return (best,), f"best random mask on validation: {best}"


def _outcome(found: Verdict) -> Outcome:
    """Apply the rules in order; the least flattering that holds is the one reported."""
    controls = {control.name: control for control in found.controls}
    if not found.matches:
        return Outcome.FAIL if found.against.p_worse <= found.alpha else Outcome.INCONCLUSIVE
    if SHUFFLE in controls and controls[SHUFFLE].as_good:
        return Outcome.LAYERWISE_ONLY
    if REINIT in controls and controls[REINIT].as_good:
        return Outcome.INIT_FREE
    needed = [controls.get(SHUFFLE), controls.get(REINIT), *(controls[r] for r in found.rivals)]
    needed += [controls[RANDOM_EDGES]] if RANDOM_EDGES in controls else []
    wins = bool(found.rivals) and all(control and control.better for control in needed)
    return Outcome.WINNING if wins else Outcome.MATCHING


def _notes(found: Verdict, remark: str) -> tuple[str, ...]:
    """Return what the name leaves unsaid about the controls."""
    required = [SHUFFLE, REINIT, *found.rivals, RANDOM_EDGES]
    by = {control.name: control for control in found.controls}
    notes = {
        "better than": [c for c in by if by[c].better],
        "as good as the ticket:": [c for c in by if by[c].as_good],
        "neither shown:": [c for c in required if c in by and not (by[c].better or by[c].as_good)],
    }
    texts = [f"{label} {', '.join(names)}" for label, names in notes.items() if names]
    missing = [name for name in (SHUFFLE, REINIT) if name not in by]
    missing += [] if found.rivals else ["a random mask"]
    if found.name is Outcome.MATCHING and missing:
        texts.append(f"not run, so it cannot be WINNING: {', '.join(missing)}")
    if found.ticket.diverged and found.p_noninferior <= found.alpha:
        texts.append("a ticket with a diverged run cannot match")
    return tuple([*texts, remark] if remark else texts)


def _flags(
    arms: Mapping[str, Values], gap: Comparison, controls: tuple[Control, ...]
) -> tuple[str, ...]:
    """Return what is degenerate about these runs."""
    flags = []
    for name, values in arms.items():
        if diverged := Arm.of(values).diverged:
            flags.append(f"{name} diverged: seed {', '.join(map(str, diverged))}")
    # Where nothing can be said of the ticket, its controls need not repeat it.
    told = () if min(gap.n) < 2 else tuple((f"{c.name}: ", c.against) for c in controls)
    for prefix, tested in [("", gap), *told]:
        if min(tested.n) < 2:
            flags.append(f"{prefix}fewer than two usable runs an arm")
        elif tested.se == 0:
            flags.append(f"{prefix}zero variance, decided by the difference itself")
    n_dense, n_ticket = len(arms[DENSE]), len(arms[TICKET])
    if gap.test == "paired" and arms[DENSE].keys() != arms[TICKET].keys():
        flags.append(f"paired on {gap.n[0]} common seeds of {n_dense} dense, {n_ticket} ticket")
    return tuple(flags)


def _seeds_needed(gap: Comparison, margin: float, alpha: float) -> int | None:
    if gap.se is None:
        return None
    return seeds_needed(lambda n: gap.power(margin, alpha, n) or 0.0)


def field_rules(dense: Values, ticket: Values, *, higher_is_better: bool = True) -> FieldRules:
    """Apply the rules papers use: mean within one dense sd, mean at least dense's.

    A ticket with a diverged run passes neither.
    """
    d, t = Arm.of(dense), Arm.of(ticket)
    if t.diverged:
        return FieldRules(False, False)
    if d.mean is None or t.mean is None:
        return FieldRules(None, None)
    gain = (t.mean - d.mean) * (1 if higher_is_better else -1)
    return FieldRules(None if d.sd is None else gain >= -d.sd, gain >= 0)


def judge_levels(
    results: Results, *, paired: bool = True, alpha: float = 0.05
) -> list[LevelVerdict]:
    """Judge every level at which a ticket ran, from dense upward in sparsity.

    A fixed-sequence test: each level is tested at ``alpha`` as long as all before it matched,
    so that the chance of any false claim of matching stays ``alpha`` without correction.
    """
    reported = []
    stopped: int | None = None
    for level, sparsity, edges in _ticket_levels(results):
        verdict = _judge_level(results, level, paired=paired, alpha=alpha)
        name, note = verdict.name, ""
        if stopped is not None:
            note = f"sequence stopped at level {stopped}"
            name = Outcome.INCONCLUSIVE if verdict.matches else name
        claimed = verdict.matches and stopped is None
        if not verdict.matches and stopped is None:
            stopped = level
        reported.append(LevelVerdict(level, sparsity, verdict, claimed, name, note, edges))
    return reported


def _ticket_levels(results: Results) -> list[tuple[int, float, float | None]]:
    """(level, mean sparsity, that of edges) of every level with a ticket run, failed or not."""
    runs: dict[int, list[Run]] = {}
    for run in results.runs:
        if run.arm == TICKET and run.level > 0:
            runs.setdefault(run.level, []).append(run)
    levels = [(level, fmean(r.sparsity for r in at), _edges(at)) for level, at in runs.items()]
    return sorted(levels, key=lambda found: (found[1], found[0]))


def _edges(runs: list[Run]) -> float | None:
    """Return the mean sparsity of the graph; None where no run of these pruned edges."""
    known = [run.graph_sparsity for run in runs if run.edges]
    return fmean(known) if known else None


def _judge_level(results: Results, level: int, *, paired: bool, alpha: float) -> Verdict:
    def values(arm: str, split: str = "test") -> dict[int, float]:
        return _values(results, arm, 0 if arm == DENSE else level, split)

    at = [r for r in results.runs if r.level == (0 if r.arm == DENSE else level)]
    controls = [name for name in dict.fromkeys(r.arm for r in at) if name not in (DENSE, TICKET)]
    verdict = judge(
        values(DENSE),
        values(TICKET),
        {name: values(name) for name in controls},
        margin=results.margin,
        higher_is_better=results.higher_is_better,
        paired=paired,
        alpha=alpha,
        validation={n: values(n, "validation") for n in controls if n in RANDOMS},
    )
    notes = verdict.notes
    if verdict.name is Outcome.WINNING and _edges(at) and RANDOM_EDGES not in controls:
        notes += (f"{RANDOM_EDGES} not run, so nothing is said of which edges were chosen",)
    return replace(verdict, flags=verdict.flags + _run_flags(at), notes=notes)


def _values(results: Results, arm: str, level: int, split: str) -> dict[int, float]:
    """Seed -> headline metric; NaN for a diverged run, nothing for one that did not finish."""
    runs = [r for r in results.runs if r.arm == arm and r.level == level]
    found = {r.seed: r.metrics.get(split, {}).get(results.headline) for r in runs}
    diverged = {r.seed: math.nan for r in runs if "diverged" in r.flags}
    return {**{s: v for s, v in found.items() if v is not None}, **diverged}


def _run_flags(runs: list[Run]) -> tuple[str, ...]:
    """Return the runs' own flags and failures, but divergence, which the verdict flags."""
    texts: dict[str, list[str]] = {}
    for run in runs:
        failed = ["failed"] if run.error and "diverged" not in run.flags else []
        for flag in [f for f in run.flags if f != "diverged"] + failed:
            texts.setdefault(f"{run.arm} {flag}", []).append(str(run.seed))
    return tuple(f"{what}: seed {', '.join(seeds)}" for what, seeds in texts.items())
