"""The transfer part of a report: figures that can be read, tables that say what was measured."""

from __future__ import annotations

import io
import json
import math
from dataclasses import replace
from pathlib import Path

import matplotlib.image
import pytest

from lth_zoo.errors import BadInput
from lth_zoo.recipe import Recipe
from lth_zoo.report import heatmap, matrix
from lth_zoo.report.heatmap import transfer_pictures
from lth_zoo.report.page import write_report
from lth_zoo.report.style import DARK, LIGHT
from lth_zoo.trials.cells import Cell, CellRun, Target, TransferResults, judge_cells
from lth_zoo.trials.overlap import Overlap

LONG = "text/some-org/a-rather-long-data-set@config:premise,hypothesis:label"


def cell(source, target, mean, seeds=5, spread=0.2):
    at = (-1, 1, -0.5, 0.5, 0.0)
    runs = (CellRun(s, mean + spread * at[s], kept=300, prunable=1000) for s in range(seeds))
    return Cell(source, target, tuple(runs))


def results(seeds=5, **fields):
    """A matrix of two targets, one of a long name whose metric is better when lower."""
    targets = (
        Target("glue/cola", "matthews", True, 1.0, cell("dense", "glue/cola", 50.0, seeds)),
        Target(LONG, "perplexity", False, 0.1, cell("dense", LONG, 8.0, seeds, 0.02)),
    )
    broken = Cell("glue/cola", LONG, tuple(CellRun(s, error="no\nfit") for s in range(seeds)))
    cells = (
        cell("glue/cola", "glue/cola", 49.9, seeds),
        broken,
        cell("one-shot", "glue/cola", 30.0, seeds),
        cell("one-shot", LONG, 7.0, seeds, 0.03),
        cell(LONG, LONG, 8.01, seeds, 0.02),
    )
    both = (0.61, 0.22)
    pair = Overlap("glue/cola", "one-shot", seeds, both, {"ffn": both}, {"w": both})
    plain = replace(Recipe(), seeds=tuple(range(seeds)), name="both", sparsity=0.7).to_dict()
    cost = {"jobs": 9.0, "searches": 2.0, "iterations_total": 90.0, "seconds_total": 3.0}
    sources, notes = ("glue/cola", "one-shot"), ("Mind this.",)
    made = TransferResults(plain, sources, targets, "mask", cells, (pair,), notes, cost)
    return replace(made, **fields)


def square(found, source, target, against):
    judged = {(j.source, j.target): j for j in judge_cells(found)}
    at = next(t for t in found.targets if t.name == target)
    return heatmap._square(found, judged, source, at, against)


def test_there_is_a_figure_against_each_reference_and_one_of_the_masks():
    whole = results()
    drawn = {p.name: p for p in transfer_pictures(whole, judge_cells(whole))}
    assert list(drawn) == ["transfer-dense", "transfer-same-task", "overlap"]
    for picture in drawn.values():
        assert picture.light != picture.dark
        for png, theme in ((picture.light, LIGHT), (picture.dark, DARK)):
            pixels = matplotlib.image.imread(io.BytesIO(png))
            paper = matplotlib.colors.to_rgb(theme.paper)
            assert pixels[0, 0, :3] == pytest.approx(paper, abs=0.01)
            assert pixels[..., :3].std() > 0.05
    assert "Holm" in drawn["transfer-dense"].caption
    assert "log" in drawn["transfer-dense"].caption
    empty = tuple(replace(c, runs=()) for c in whole.cells)
    nothing = replace(whole, cells=empty, overlaps=())
    assert transfer_pictures(nothing, judge_cells(nothing)) == []


def test_a_square_says_difference_interval_and_mark():
    whole = results()
    text, value, framed = square(whole, "one-shot", "glue/cola", "same-task")
    lines = text.split("\n")
    assert (lines[0], lines[-1], framed) == ("-19.9", "▼", False)
    assert value == pytest.approx(-19.9)
    # lower is better: 1.0 less is ten margins better, and its unit stays its own
    text, value, _ = square(whole, "one-shot", LONG, "same-task")
    assert text.startswith("-1.01\n± 0.0")
    assert text.endswith("▲ ≈".replace(" ", ""))
    assert value == pytest.approx(10.1)
    assert square(whole, "one-shot", LONG, "dense")[0].endswith("✓")


def test_the_reference_of_a_column_is_framed():
    whole = results()
    assert square(whole, "glue/cola", "glue/cola", "same-task") == ("49.9\nsame task", 0.0, True)
    assert square(whole, "glue/cola", "glue/cola", "dense")[2]
    assert heatmap.rows_of(whole)[-1] == "same task"
    assert square(whole, "same task", LONG, "dense")[2]
    assert square(whole, "same task", "glue/cola", "dense") == ("", None, False)


def test_what_failed_is_shown_as_failed():
    whole = results()
    assert square(whole, "glue/cola", LONG, "dense") == ("failed", None, False)
    lost = tuple(replace(c, runs=()) if c.source == "one-shot" else c for c in whole.cells)
    assert square(replace(whole, cells=lost), "one-shot", LONG, "dense")[0] == "not run"
    wild = tuple(
        replace(c, runs=(CellRun(0, flags=("diverged",), error="diverged"),))
        if c.source == "one-shot"
        else c
        for c in whole.cells
    )
    assert square(replace(whole, cells=wild), "one-shot", LONG, "dense")[0] == "diverged"
    fewer = tuple(replace(c, runs=c.runs[:3]) if c.source == "one-shot" else c for c in whole.cells)
    assert "n=3" in square(replace(whole, cells=fewer), "one-shot", LONG, "dense")[0]


def test_one_seed_has_differences_and_no_mark():
    whole = results(seeds=1)
    assert square(whole, "one-shot", "glue/cola", "same-task")[0] == "-19.9"
    captions = [p.caption for p in transfer_pictures(whole, judge_cells(whole))[:2]]
    assert all("no cell has a mark" in caption for caption in captions)
    assert "no cell has a mark" in " ".join(matrix.transfer_findings(whole, judge_cells(whole)))


@pytest.mark.parametrize(("width", "lines"), [(14, 3), (22, 2), (14, 1)])
def test_long_names_fit_and_begin_as_they_do(width, lines):
    shown = heatmap.wrapped(LONG, width, lines).split("\n")
    assert len(shown) <= lines
    assert max(map(len, shown)) <= width
    assert shown[-1].endswith("…")
    assert LONG.startswith("".join(shown)[:-1])
    assert heatmap.wrapped("glue/cola", 14, 3) == "glue/cola"


@pytest.mark.parametrize("theme", [LIGHT, DARK], ids=["light", "dark"])
def test_text_stands_out_on_every_colour(theme):
    colours = heatmap.palette(theme)

    def luminance(rgb):
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in rgb[:3]]
        return sum(w * c for w, c in zip((0.2126, 0.7152, 0.0722), linear, strict=True))

    for i in range(101):
        face = colours(i / 100)
        dark, light = sorted((luminance(face), float(heatmap._ink(face) == "white")))
        assert (light + 0.05) / (dark + 0.05) > 4.5


def test_the_page_has_everything_a_cell_was_judged_by(tmp_path: Path):
    whole = results()
    paths = write_report([], tmp_path / "report", transfers=[whole])
    figures = ("transfer-dense", "transfer-same-task", "overlap")
    assert {f"both-{name}.png" for name in figures} <= set(paths)
    text = paths["markdown"].read_text(encoding="utf-8")
    for words in (
        "2 sources to 2 targets at 70 % sparsity, 5 seeds: the masks alone",
        "1 of 2 transfer",
        "| one-shot | glue/cola | -20.00 |",
        f"| glue/cola | {LONG} | 0 | failed | no fit |",
        "| glue/cola | one-shot | 5 | 0.610 | 0.220 |",
        "Mind this.",
        "A cell without a mark".lower(),
    ):
        assert words in text.replace("Transfer: a", "a"), words
    assert "nan" not in text
    data = json.loads(paths["json"].read_text(encoding="utf-8"))
    (one,) = data["transfers"]
    assert TransferResults.from_json(one["results"]).cells == whole.cells
    assert [j["p_matches"] for j in one["judged"]] == [j.p_matches for j in judge_cells(whole)]
    assert data["recipes"] == []
    assert "data:image/png" in paths["html"].read_text(encoding="utf-8")


def test_a_report_with_a_matrix_is_replaced_and_a_foreign_file_is_not(tmp_path: Path):
    out = tmp_path / "report"
    write_report([], out, transfers=[results()])
    again = write_report([], out, transfers=[results(), results(seeds=2)])
    assert {"both-overlap.png", "both-2-overlap.png"} <= set(again)
    (out / "notes.txt").write_text("mine")
    with pytest.raises(BadInput, match=r"notes\.txt"):
        write_report([], out, transfers=[results()])


def test_the_terminal_has_a_row_a_source():
    from rich.console import Console

    out, whole = io.StringIO(), results()
    Console(file=out, width=120).print(matrix.text_matrix(whole, judge_cells(whole)))
    (line,) = [row for row in out.getvalue().splitlines() if row.strip().startswith("one-shot")]
    said = ["30.0", "-20.0", "-19.9", "▼", "7.00", "-1.00", "-1.01", "✓▲≈"]
    assert line.split() == ["one-shot", *said]
    assert max(map(len, out.getvalue().splitlines())) < 80
    assert "failed" in out.getvalue()
    assert not math.isnan(judge_cells(whole)[0].p_matches)


def test_networks_that_answer_one_thing_are_named():
    whole = results()
    stuck = tuple(
        replace(c, runs=tuple(replace(r, flags=("constant",)) for r in c.runs))
        if (c.source, c.target) == ("one-shot", LONG)
        else c
        for c in whole.cells
    )
    found = replace(whole, cells=stuck)
    assert square(found, "one-shot", LONG, "dense")[0].endswith("✓ constant")
    (line,) = [s for s in matrix.transfer_findings(found, judge_cells(found)) if "one thing" in s]
    assert f": one-shot on {LONG}." in line
    assert "flagged" in {row[3] for row in matrix.trouble_table(found).rows}
