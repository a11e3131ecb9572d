"""The report of finished recipes, over synthetic numbers with a known Occam's hill."""

from __future__ import annotations

import io
import itertools
import json
import math
import re
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from synthetic import CONTROLS, results, run

from lth_zoo.errors import BadInput, StoreError
from lth_zoo.report import figures, page, panels, series, tables, words
from lth_zoo.report.figures import Picture, pictures
from lth_zoo.report.page import judge, write_report
from lth_zoo.report.style import DARK, LIGHT, looks
from lth_zoo.trials.results import DENSE, TICKET, Results, Run


@pytest.fixture(autouse=True)
def coarse(monkeypatch: pytest.MonkeyPatch) -> None:
    """Draw with few pixels, where no test looks at them (``paths`` is drawn before, in full)."""
    monkeypatch.setattr(figures, "DPI", 30)


@pytest.fixture(scope="module")
def whole() -> Results:
    return results()


@pytest.fixture(scope="module")
def paths(whole: Results, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return write_report([whole], tmp_path_factory.mktemp("reports") / "report")


def test_the_folder_holds_exactly_what_was_promised(paths: dict[str, Path]) -> None:
    folder = paths["html"].parent
    assert {path.name for path in folder.iterdir()} == {path.name for path in paths.values()}
    assert {path.suffix for path in paths.values()} == {".html", ".md", ".json", ".png"}
    assert not list(folder.parent.glob(".report*")), "a temporary folder was left"


def test_the_page_loads_nothing(paths: dict[str, Path]) -> None:
    html = paths["html"].read_text(encoding="utf-8")
    loads = re.findall(r"""(?:src|srcset|href)\s*=\s*["']([^"']{0,40})""", html)
    assert loads
    assert all(load.startswith(("data:image/png;base64,", "#")) for load in loads)
    assert not re.search(r"<script|<link|<iframe|@import|url\(|https?://", html)
    assert html.count("<figure>") == 4


def test_figures_are_images_with_ink(paths: dict[str, Path]) -> None:
    from matplotlib.image import imread

    for path in paths.values():
        if path.suffix == ".png":
            pixels = imread(path)
            assert pixels.shape[1] > 1000
            assert pixels[..., :3].std() > 0.05, f"{path.name} is blank"


def test_json_holds_the_results_and_verdicts_unchanged(
    paths: dict[str, Path], whole: Results
) -> None:
    data = json.loads(paths["json"].read_text(encoding="utf-8"))
    (recipe,) = data["recipes"]
    assert Results.from_json(recipe["results"]) == whole
    assert recipe["verdicts"] == json.loads(json.dumps([v.to_json() for v in judge(whole)]))


def test_markdown_has_a_verdict_row_for_every_level(paths: dict[str, Path], whole: Results) -> None:
    lines = paths["markdown"].read_text(encoding="utf-8").splitlines()
    start = lines.index("### Verdicts: the ticket against dense")
    rows = [
        [cell.strip() for cell in line.split("|")[1:-1]] for line in lines[start + 4 : start + 19]
    ]
    found = judge(whole)
    assert [(row[0], row[3]) for row in rows] == [(str(v.level), str(v.name)) for v in found]
    assert float(rows[8][4]) == round(found[8].verdict.against.difference or 0, 2)
    assert {row[3] for row in rows} >= {"WINNING", "LAYERWISE-ONLY"}


def test_page_and_markdown_show_protocol_expectation_and_limits(
    paths: dict[str, Path], whole: Results
) -> None:
    for kind in ("html", "markdown"):
        text = paths[kind].read_text(encoding="utf-8").replace("&amp;", "&")
        assert whole.recipe["paper"] in text
        assert whole.recipe["expected"] in text
        assert "An unstructured ticket is not faster by itself" in text


def test_accuracy_cells_are_the_means(whole: Results) -> None:
    table = tables.accuracy_table(whole)
    values = list(whole.values(TICKET, 9).values())
    row = next(row for row in table.rows if row[0] == "9")
    assert row[3].startswith(f"{sum(values) / 5:.2f} ± ")
    assert row[table.columns.index(DENSE)] == tables.NONE


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Replace the figures by one of three bytes: these tests are about folders."""
    picture = Picture("accuracy", "title", "caption", b"one", b"two")
    monkeypatch.setattr(page, "pictures", lambda *_: [picture])


@pytest.mark.usefixtures("undrawn")
def test_a_crash_leaves_the_old_report_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "report"
    small = results(1, 1, ())
    write_report([small], out)
    before = {path.name: path.read_bytes() for path in out.iterdir()}

    def fail(*_: object) -> str:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(page, "_json", fail)
    with pytest.raises(StoreError, match="No space left"):
        write_report([results(2, 1, ())], out)
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before
    with pytest.raises(StoreError):
        write_report([small], tmp_path / "other")
    assert [path.name for path in tmp_path.iterdir()] == ["report"]


@pytest.mark.usefixtures("undrawn")
def test_an_older_report_is_replaced_whole(tmp_path: Path) -> None:
    out = tmp_path / "report"
    old = write_report([results(1, 2, ())], out)
    small = results(1, 1, ())
    new = write_report([replace(small, recipe={**small.recipe, "name": "other"})], out)
    assert {path.name for path in out.iterdir()} == {path.name for path in new.values()}
    assert not old["lenet-mnist-short-accuracy.png"].exists()


@pytest.mark.usefixtures("undrawn")
def test_a_folder_with_other_files_is_never_replaced(tmp_path: Path) -> None:
    small = [results(1, 1, ())]
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(BadInput, match="holds no report"):
        write_report(small, tmp_path)
    with pytest.raises(BadInput, match="is a file"):
        write_report(small, tmp_path / "thesis.tex")
    write_report(small, tmp_path / "report")
    (tmp_path / "report" / "notes.txt").write_text("mine")
    with pytest.raises(BadInput, match=r"notes\.txt"):
        write_report(small, tmp_path / "report")
    with pytest.raises(BadInput, match="no results"):
        write_report([], tmp_path / "none")
    assert (tmp_path / "thesis.tex").read_text() == "years of work"


@pytest.mark.usefixtures("undrawn")
def test_several_recipes_share_a_page_and_never_a_file(tmp_path: Path) -> None:
    found = [results(2, 2), results(2, 1, ()), results(1, 1)]
    found[1] = replace(found[1], recipe={**found[1].recipe, "name": "<script>alert(1)</script>"})
    paths = write_report(found, tmp_path / "report", title="All & more")
    html = paths["html"].read_text(encoding="utf-8")
    assert "<script" not in html
    assert "All &amp; more" in html
    assert "Recipes in this report" in html
    assert {"lenet-mnist-short-accuracy.png", "lenet-mnist-short-2-accuracy.png"} <= set(paths)
    assert len(json.loads(paths["json"].read_text())["recipes"]) == 3


@pytest.mark.usefixtures("undrawn")
def test_failed_and_flagged_runs_are_listed_and_in_no_mean(tmp_path: Path) -> None:
    whole = results(3, 2)
    failed = replace(run(TICKET, 2, 7, 0.64), metrics={}, error="Diverged: nan at step 312")
    wild = replace(
        run("reinit", 2, 8, 0.64), flags=("diverged",), metrics={"test": {"accuracy": math.nan}}
    )
    flagged = replace(run("shuffle", 2, 9, 0.64), flags=("constant",))
    broken = replace(whole, runs=[*whole.runs, failed, wild, flagged])
    paths = write_report([broken], tmp_path / "report")
    text = paths["markdown"].read_text(encoding="utf-8")
    assert "| ticket | 2 | 7 | failed | Diverged: nan at step 312 |" in text
    assert "| reinit | 2 | 8 | flagged | diverged |" in text
    assert "| shuffle | 2 | 9 | flagged | constant |" in text
    assert "1 of 36 runs failed" in text
    assert f"{series.points(broken, 'shuffle')[1].mean:.2f} ± " in text
    assert text.count("(n=4)") == 1
    assert series.points(broken, TICKET)[1].n == 3
    assert series.points(broken, "reinit")[1].n == 3
    data = json.loads(paths["json"].read_text(encoding="utf-8"))
    assert data["recipes"][0]["results"]["runs"][-2]["metrics"]["test"]["accuracy"] is None


def test_a_missing_arm_is_a_dash_not_a_zero() -> None:
    whole = results(2, 4)
    partial = replace(
        whole, runs=[r for r in whole.runs if r.level == 4 or r.arm in (DENSE, TICKET)]
    )
    table = tables.accuracy_table(partial)
    column = table.columns.index("reinit")
    assert [row[column] == tables.NONE for row in table.rows] == [True] * 4 + [False]
    assert len(pictures(partial)) == 4
    gone = replace(whole, runs=[r for r in whole.runs if not (r.arm == TICKET and r.level == 2)])
    assert [p.level for p in series.points(gone, TICKET)] == [1, 3, 4]
    assert len(pictures(gone)) == 4


@pytest.mark.parametrize(
    ("seeds", "levels", "controls"),
    [(1, 3, CONTROLS), (3, 1, CONTROLS), (2, 3, ()), (1, 1, ())],
    ids=["one seed", "one level", "no controls", "least"],
)
def test_small_recipes_have_every_figure(
    seeds: int, levels: int, controls: Sequence[str], tmp_path: Path
) -> None:
    paths = write_report([results(seeds, levels, controls)], tmp_path / "report")
    assert len(paths) == 3 + 4
    captions = paths["markdown"].read_text(encoding="utf-8")
    assert ("no spread is known" in captions) == (seeds == 1)
    assert "nan" not in captions


def test_a_recipe_with_only_dense_runs_reports_without_figures(tmp_path: Path) -> None:
    whole = results(2, 1, ())
    dense = replace(whole, runs=[r for r in whole.runs if r.arm == DENSE], cost={})
    paths = write_report([dense], tmp_path / "report")
    assert set(paths) == {"html", "markdown", "json"}
    assert "nothing is judged" in paths["markdown"].read_text(encoding="utf-8")


def perplexity(whole: Results) -> Results:
    """Return the same recipe with a metric of which less is better."""

    def flip(one: Run) -> Run:
        metrics = {s: {"perplexity": 200 - 1.9 * m["accuracy"]} for s, m in one.metrics.items()}
        curve = [
            {
                "iteration": r["iteration"],
                "validation_perplexity": 200 - 1.9 * r["validation_accuracy"],
            }
            for r in one.curve
        ]
        return replace(one, metrics=metrics, curve=curve)

    runs = [flip(one) for one in whole.runs]
    return replace(whole, headline="perplexity", higher_is_better=False, margin=0.6, runs=runs)


def test_lower_is_better_turns_frame_words_and_best_ticket(whole: Results) -> None:
    low = perplexity(whole)
    up, down = series.best_ticket(whole), series.best_ticket(low)
    assert up
    assert down
    assert up.level == down.level
    accuracy_figure = pictures(low)[0]
    assert "plus the margin 0.6" in accuracy_figure.caption
    assert "Lower is better" in accuracy_figure.caption
    assert "WINNING" in " ".join(words.findings(low, judge(low)))


def test_the_frame_shows_the_hill_and_cuts_the_collapse(whole: Results) -> None:
    shown = [p for arm in whole.arms() for p in series.points(whole, arm)]
    dense = series.dense_point(whole)
    assert dense
    low, high, cut = series.window(shown, dense, 5 * whole.margin, True) or (0, 0, False)
    assert cut
    assert high > max(p.high for p in series.points(whole, TICKET))
    assert low == pytest.approx(dense.mean - 1.5, abs=0.2)
    near = [p for p in shown if p.mean > 97.9]
    assert not (series.window(near, dense, 1.5, True) or (0, 0, True))[2]
    assert "full range" not in pictures(results(2, 3))[0].caption


def test_an_arm_has_one_colour_in_a_report_and_its_own_marker() -> None:
    arms = [DENSE, TICKET, *CONTROLS, *(f"own-{i}" for i in range(4))]
    for theme in (LIGHT, DARK):
        found = looks(arms, theme)
        assert looks([*arms, "later"], theme)[CONTROLS[1]] == found[CONTROLS[1]]
        assert len({(look.colour, look.marker) for look in found.values()}) == len(arms)


def test_ticks_keep_both_ends_and_their_distance() -> None:
    densities = [0.9**level for level in range(60)]
    ticks = panels.spaced_ticks(densities)
    assert ticks[0] == 1.0
    assert ticks[-1] == densities[-1]
    gaps = [math.log(a / b) for a, b in itertools.pairwise(ticks)]
    assert min(gaps) > 0.05 * math.log(1 / densities[-1])
    assert len(ticks) <= 17


def test_layer_names_keep_what_tells_them_apart() -> None:
    names = [f"bert.encoder.layer.{i}.attention.self.query.weight" for i in range(12)]
    shown = panels.short_names([*names, "all"])
    assert shown[3] == "3.attention.self.query"
    assert len(set(shown)) == 13
    assert panels.short_names(["x" * 50 + ".weight"]) == ["…" + "x" * 33]


def test_decimals_follow_the_margin(whole: Results) -> None:
    assert series.decimals(whole) == 2
    assert series.decimals(replace(whole, margin=2.0)) == 2
    assert series.decimals(replace(whole, margin=0.003)) == 4


def test_the_terminal_table_is_one_line_a_level_in_80_columns(whole: Results) -> None:
    from rich.console import Console

    out = io.StringIO()
    Console(file=out, width=80).print(tables.text_table(whole, judge(whole)))
    lines = [line for line in out.getvalue().splitlines() if "<0.001" in line or " 0.00" in line]
    assert len(lines) == 15
    assert "[+0.17, +0.52]" in lines[8]
    assert lines[8].split()[2] == "WINNING"


def test_importing_the_report_is_light() -> None:
    code = (
        "import sys, lth_zoo.report.page, lth_zoo.report.tables;"
        "heavy = {'matplotlib', 'jinja2', 'rich', 'scipy'} & set(sys.modules);"
        "sys.exit(', '.join(heavy) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
