"""The report and the verdict of recipes with two sparsities: of weights and of a graph's edges."""

from __future__ import annotations

import io
import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
from synthetic import GRAPH_CONTROLS, GRAPH_EDGES, graph_results, results

from lth_zoo.report import (
    figures,
    graphs,
    heatmap,
    page,
    panels,
    plane,
    plane_figures,
    tables,
    words,
)
from lth_zoo.report.page import judge, write_report
from lth_zoo.trials.results import TICKET, Results
from lth_zoo.trials.verdict import Outcome
from lth_zoo.trials.verdict import judge as judged


@pytest.fixture(autouse=True)
def coarse(monkeypatch: pytest.MonkeyPatch) -> None:
    """Draw with few pixels, where no test looks at them."""
    monkeypatch.setattr(figures, "DPI", 30)
    monkeypatch.setattr(heatmap, "DPI", 30)


@pytest.fixture(scope="module")
def whole() -> Results:
    return graph_results(seeds=3, levels=6)


@pytest.fixture(scope="module")
def paths(whole: Results, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(figures, "DPI", 30)
        patch.setattr(heatmap, "DPI", 30)
        return write_report([whole], tmp_path_factory.mktemp("graphs") / "report")


def study(*pairs: tuple[float, float], **more: object) -> list[Results]:
    """Return recipes alike but for their targets (weights, edges), of two levels each."""
    found = []
    for weights, edges in pairs:
        rates = (1 - (1 - weights) ** 0.5, 1 - (1 - edges) ** 0.5)
        one = graph_results(2, 2, ("graph-only", "weights-only"), rates, nodes=20)
        recipe = {**one.recipe, "name": f"grid: {weights} {edges}", **more}
        found.append(replace(one, recipe=recipe, graph=None))
    return found


# -- both sparsities, everywhere -----------------------------------------------------------


def test_every_table_of_levels_has_a_column_for_each_sparsity(whole: Results) -> None:
    verdicts = judge(whole)
    table = tables.verdict_table(whole, verdicts)
    assert table.columns[1:5] == (
        *("weight sparsity %", "graph sparsity %"),
        *("weights kept of 92,160", "edges kept of 5,278"),
    )
    assert table.rows[5][:5] == ("6", "73.8", "26.5", "24,159", "3,880")
    assert table.words == {table.columns.index("verdict")}
    controls = tables.controls_table(whole, verdicts)
    assert controls.rows[5][:3] == ("6", "73.8", "26.5")
    assert controls.columns[3] == "verdict"
    accuracy = tables.accuracy_table(whole)
    assert accuracy.columns[:3] == ("level", "% of weights", "% of edges")
    assert accuracy.rows[0][:3] == ("0", "100", "100")
    assert accuracy.rows[6][:3] == ("6", "26.2", "73.5")


def test_counts_say_what_is_kept_of_both(whole: Results) -> None:
    from lth_zoo.report.costs import counts_table

    table = counts_table(whole)
    assert table.columns[-3:] == ("edges kept", "edges", "% of edges")
    assert table.rows[-1][-3:] == ("3,880", "5,278", "73.5")


def test_sentences_never_blend_the_two(whole: Results) -> None:
    found = judge(whole)
    said = " ".join(words.findings(whole, found))
    assert "26.2 % of the prunable weights and 73.5 % of the edges" in said
    assert str(found[-1]).startswith("level 6, 73.79% weight sparsity, 26.49% graph sparsity: ")
    assert found[-1].to_json()["graph_sparsity"] == pytest.approx(1 - 3880 / GRAPH_EDGES)
    other = results(2, 2, ())
    assert "graph_sparsity" not in judge(other)[0].to_json()
    assert "edges" not in other.to_json()["runs"][0]
    summary = words.summary_table([(whole, found), (other, judge(other))])
    assert summary.columns[4:6] == ("% of weights", "% of edges")
    assert [row[5] for row in summary.rows] == ["73.5", "100"]
    assert "Graph sparsity counts" in " ".join(words.limits([whole, other]))
    assert "Graph sparsity" not in " ".join(words.limits([other]))


def test_the_terminal_table_is_one_line_a_level_in_80_columns() -> None:
    from rich.console import Console

    many = graph_results(5, 12)
    out = io.StringIO()
    Console(file=out, width=80).print(tables.text_table(many, judge(many)))
    lines = [line for line in out.getvalue().splitlines() if re.match(r" *\d+ ", line)]
    assert len(lines) == 12
    assert lines[5].split()[:3] == ["6", "26.2", "73.5"]
    assert "e %" in out.getvalue()


def test_a_page_holds_every_part_and_its_numbers(paths: dict[str, Path], whole: Results) -> None:
    drawn = ["accuracy", "pareto", "removed-edges", "graph", "early-stop", "training", "density"]
    assert {f"gcn-cora-0-74-0-26-{name}.png" for name in drawn} == set(paths) - {
        *("html", "markdown", "json"),
    }
    text = paths["markdown"].read_text(encoding="utf-8")
    for title in ("The sparsest pairs that match", "What is kept of the graph", "Which edges go"):
        assert f"### {title}" in text
    assert "nan" not in text
    assert not re.search(r"https?://|<script|<link", paths["html"].read_text(encoding="utf-8"))
    (recipe,) = json.loads(paths["json"].read_text(encoding="utf-8"))["recipes"]
    assert Results.from_json(recipe["results"]) == whole
    assert len(recipe["spots"]) == 6 * 7
    page.check_free(paths["html"].parent)  # which knows every file in it


# -- figures -------------------------------------------------------------------------------


def test_an_arm_is_drawn_along_the_axes_that_it_prunes(whole: Results) -> None:
    arms = figures._arms(whole)
    sides = panels.sides_of(arms)
    assert list(sides) == ["prunable weights", "edges"]
    assert set(arms) - set(sides["prunable weights"]) == {"graph-only"}
    assert set(arms) - set(sides["edges"]) == {"weights-only"}
    assert sides["edges"][TICKET][5].density == pytest.approx(3880 / GRAPH_EDGES)
    # A search of weights alone on a graph has one axis; so has one of edges alone.
    flat = graph_results(1, 3, ("random-edges",), (0.2, 0.0))
    assert list(panels.sides_of(figures._arms(flat))) == ["prunable weights"]
    edges = graph_results(1, 3, ("random-edges",), (0.0, 0.05))
    assert list(panels.sides_of(figures._arms(edges))) == ["edges"]


@pytest.mark.parametrize(
    ("seeds", "levels", "controls", "rates"),
    [
        (1, 3, GRAPH_CONTROLS, (0.2, 0.05)),
        (2, 1, GRAPH_CONTROLS, (0.2, 0.05)),
        (1, 1, (), (0.2, 0.05)),
        (2, 3, ("random-edges",), (0.0, 0.05)),
    ],
    ids=["one seed", "one level", "least", "edges alone"],
)
def test_small_recipes_report(
    seeds: int,
    levels: int,
    controls: tuple[str, ...],
    rates: tuple[float, float],
    tmp_path: Path,
) -> None:
    one = graph_results(seeds, levels, controls, rates, nodes=12)
    paths = write_report([one], tmp_path / "report")
    text = paths["markdown"].read_text(encoding="utf-8")
    assert "nan" not in text
    plain = len(controls) > 1
    assert any("pareto" in name for name in paths) == plain
    if plain:
        assert ("one seed: no test" in text) == (seeds == 1)


# -- the plane -----------------------------------------------------------------------------


def test_a_spot_matches_by_a_test_of_its_own(whole: Results) -> None:
    found = {(s.arm, s.level): s for s in plane.spots(whole)}
    assert len(found) == 6 * 7
    verdicts = {v.level: v.verdict for v in judge(whole)}
    for level, verdict in verdicts.items():
        assert found[TICKET, level].matches == verdict.matches
        assert found[TICKET, level].difference == pytest.approx(verdict.against.difference)
    assert found["graph-only", 6].pair == (1.0, 0.735)
    assert found["weights-only", 6].pair == (0.262, 1.0)
    assert [s.level for s in found.values() if s.last and s.arm == TICKET] == [6]
    low = {(s.arm, s.level): s for s in plane.spots(replace(whole, higher_is_better=False))}
    assert low["random-graph", 6].matches
    assert not found["random-graph", 6].matches


def spot(weights: float, edges: float, matches: bool = True, arm: str = TICKET) -> plane.Spot:
    return plane.Spot(arm, 1, weights, edges, 80.0, 1.0, 3, -0.5, matches, True)


def test_the_front_holds_what_nothing_sparser_in_both_ways_beats() -> None:
    found = [spot(0.5, 0.9), spot(0.2, 0.95), spot(0.6, 0.9), spot(1.0, 0.6), spot(0.1, 0.5, False)]
    assert plane.front(found) == [(0.2, 0.95), (0.5, 0.9), (1.0, 0.6)]
    assert plane.front([spot(0.5, 0.9, False)]) == []
    table = plane.front_table([*found, spot(0.5, 0.9, arm="reinit")], 1)
    assert table.rows[1] == ("50.0", "90.0", "ticket 80.0 ± 1.0 (n=3), reinit 80.0 ± 1.0 (n=3)")


def test_a_diverged_run_never_matches(whole: Results) -> None:
    wild = [
        replace(run, flags=("diverged",)) if (run.arm, run.level) == (TICKET, 1) else run
        for run in whole.runs[:4]
    ]
    broken = replace(whole, runs=[*wild, *whole.runs[4:]])
    assert not any(s.matches for s in plane.spots(broken) if (s.arm, s.level) == (TICKET, 1))


def test_arms_that_keep_as_much_lie_in_lanes_and_the_ticket_in_its_place(whole: Results) -> None:
    spots = plane.spots(whole)
    arms = list(dict.fromkeys(s.arm for s in spots))
    lanes = plane_figures._lanes([(a, [s for s in spots if s.arm == a]) for a in arms])
    found = dict(zip(arms, lanes, strict=True))
    assert found[TICKET] == found["graph-only"] == found["weights-only"] == 0
    rest = [lane for arm, lane in found.items() if arm.startswith(("random", "re", "sh"))]
    assert sorted(rest) == [-2, -1, 1, 2]


def test_a_study_has_a_heat_map_from_two_by_two_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(page, "pictures", lambda *_: [])
    four = study((0.5, 0.1), (0.5, 0.3), (0.8, 0.1), (0.8, 0.3))
    (found,) = plane.planes(four)
    assert (found.weights, found.edges) == ([1.0, 0.5, 0.2], [1.0, 0.9, 0.7])
    assert len(found.cells) == 8  # dense is no spot
    assert found.cells[0.2, 0.7].arm == TICKET
    assert found.cells[1.0, 0.7].arm == "graph-only"
    table = plane.plane_table(found)
    assert table.rows[0][1].startswith(f"{sum(four[0].values('dense', 0).values()) / 2:.2f} ± ")
    assert tables.NONE not in {cell for row in table.rows for cell in row}
    missing = plane.plane_table(plane.planes(four[:3])[0])
    assert missing.rows[2][3] == tables.NONE
    paths = write_report(four, tmp_path / "report")
    name = "gcn-64-on-planetoid-cora-weights-x-edges"
    assert {f"{name}-plane.png", f"{name}-pareto.png"} <= set(paths)
    data = json.loads(paths["json"].read_text(encoding="utf-8"))
    assert len(data["planes"][0]["cells"]) == 8
    write_report(four[:1], tmp_path / "report")
    assert not (tmp_path / "report" / f"{name}-plane.png").exists()


def test_recipes_that_differ_in_more_than_amounts_share_no_plane() -> None:
    assert plane.planes(study((0.5, 0.1), (0.5, 0.3), (0.5, 0.5))) == []
    assert plane.planes(study((0.5, 0.1))) == []
    apart = [*study((0.5, 0.1), (0.8, 0.3)), *study((0.5, 0.3), (0.8, 0.1), model="gat")]
    assert [p.name for p in plane.planes(apart)] == [
        "gcn-64 on planetoid/cora: weights x edges",
        "gat on planetoid/cora: weights x edges",
    ]
    assert plane.planes([results(2, 2), results(2, 3)]) == []


# -- the kept graph ------------------------------------------------------------------------


def test_the_kept_graph_has_its_levels_and_the_others_last(whole: Results) -> None:
    table = graphs.kept_table(whole)
    assert [(row[0], row[1]) for row in table.rows] == [
        ("whole graph", ""),
        *((TICKET, str(level)) for level in range(1, 7)),
        *((arm, "6") for arm in ("random-edges", "random-graph")),
    ]
    assert "between labels" in graphs.graph_findings(whole)[0]
    gone = replace(whole, graph=None)
    assert graphs.kept_table(gone).rows == ()
    assert graphs.graph_pictures(gone) == []
    assert graphs.graph_findings(gone) == ()


def test_a_layout_is_the_same_at_every_call_and_parts_do_not_lie_on_one_another() -> None:
    pairs = [[0, 0, 1, 3], [1, 2, 2, 4]]
    places = graphs.layout(pairs, 7)
    assert places == graphs.layout(pairs, 7)
    assert len({(round(x, 6), round(y, 6)) for x, y in places}) == 7
    assert graphs.layout([[], []], 1) == graphs.layout([[], []], 1)


# -- the verdict ---------------------------------------------------------------------------

NOISE, OTHER = (0.1, -0.1, 0.0, 0.05, -0.05), (-0.02, 0.06, 0.03, -0.04, -0.03)


def arm(mean: float, noise: tuple[float, ...] = NOISE) -> dict[int, float]:
    return {seed: mean + e for seed, e in enumerate(noise)}


DENSE, FOUND = arm(98.0), arm(98.0, OTHER)
BEATEN = {"shuffle": arm(96.0), "reinit": arm(96.5), "random-graph": arm(60.0)}


def test_random_graph_is_a_random_control() -> None:
    found = judged(DENSE, FOUND, BEATEN, margin=0.3)
    assert found.name is Outcome.WINNING
    assert found.rivals == ("random-graph",)
    both = {**BEATEN, "random-erk": arm(97.9, OTHER)}
    validation = {"random-graph": arm(60.0), "random-erk": arm(90.0)}
    picked = judged(DENSE, FOUND, both, margin=0.3, validation=validation)
    assert picked.rivals == ("random-erk",)


def test_winning_beats_random_edges_where_they_were_run() -> None:
    worse = judged(DENSE, FOUND, {**BEATEN, "random-edges": arm(97.0)}, margin=0.3)
    assert worse.name is Outcome.WINNING
    equal = judged(DENSE, FOUND, {**BEATEN, "random-edges": arm(98.0, OTHER)}, margin=0.3)
    assert equal.name is Outcome.MATCHING
    assert "as good as the ticket: random-edges" in equal.notes
    wide = arm(97.5, (2.0, -2.0, 1.0, -1.0, 0.0))
    unsure = judged(DENSE, FOUND, {**BEATEN, "random-edges": wide}, margin=0.3)
    assert unsure.name is Outcome.MATCHING
    assert "neither shown: random-edges" in unsure.notes


def test_a_winning_ticket_without_random_edges_says_what_it_lacks() -> None:
    one = graph_results(5, 1, ("reinit", "shuffle", "random-graph"))
    fixed = {"dense": DENSE, TICKET: FOUND, **BEATEN}
    runs = [
        replace(r, metrics={"test": {"accuracy": fixed[r.arm][r.seed]}, "validation": {}})
        for r in one.runs
    ]
    (found,) = judge(replace(one, runs=runs, margin=0.3))
    assert found.name is Outcome.WINNING
    assert "random-edges not run, so nothing is said of which edges were chosen" in found.sentence
