"""What the report shows of generative models: their images, the floor, further metrics, judges."""

from __future__ import annotations

import io
import json
import math
import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from synthetic import run

from lth_zoo.report import figures, heatmap, measures, samples, series, tables, words
from lth_zoo.report.figures import Picture, pictures
from lth_zoo.report.page import judge, write_report
from lth_zoo.report.style import DARK, LIGHT, looks
from lth_zoo.trials.results import DENSE, TICKET, Images, Results, Run

CONTROLS = ("shuffle", "reinit", "random-erk")
LEVELS, FLOOR = 4, 0.42
#: How far above dense, in the metric's unit, an arm ends at the last level.
LOSSES = {TICKET: -0.1, "shuffle": 1.5, "reinit": 2.0, "random-erk": 9.0}


def made(one: Run, loss: float) -> Run:
    """Return a run of a generator: a distance by three judges, and what else is measured."""
    rng = random.Random(f"{one.arm} {one.level} {one.seed}")
    cfd = 4.0 + loss * one.level / LEVELS + rng.gauss(0, 0.03)
    test = {"cfd": cfd, "cfd_floor": FLOOR, "cfd_1": 1.1 * cfd + rng.gauss(0, 0.05)}
    test |= {"cfd_2": cfd + rng.gauss(0, 0.02), "kid": cfd / 900, "precision": 0.8 - cfd / 100}
    test |= {"recall": 0.7, "density": 0.9 - cfd / 50, "coverage": 0.85, "entropy": 2.25}
    test |= {"memorised": 0.0, "loss": 1.4}
    curve = [{"iteration": i, "validation_loss": 1.4 + 9 / i} for i in range(500, 5001, 500)]
    metrics = {"validation": {"cfd": cfd, "loss": 1.4}, "test": test}
    file = f"train/{one.arm}-{one.level}-{one.seed}/images.safetensors"
    return replace(one, metrics=metrics, curve=curve, early_stop=5000, pictures=file)


def images_of(channels: int = 1, size: int = 8, auto: bool = True) -> dict[str, np.ndarray]:
    """Return a model's images: as many as a training leaves, each of another shade."""

    def shades(*count: int) -> np.ndarray:
        total = math.prod(count)
        shade = np.linspace(10, 245, total, dtype=np.uint8).reshape(*count, 1, 1, 1)
        return np.broadcast_to(shade, (*count, channels, size, size)).copy()

    plain = {"samples": shades(32), "interpolation": shades(4, 8)}
    return plain | ({"originals": shades(16), "reconstructions": shades(16)} if auto else {})


def generated(losses: dict[str, float] = LOSSES, seeds: int = 5, **images: object) -> Results:
    """Return a recipe of a generator whose arms lose so much at the last level."""
    runs = [made(run(DENSE, 0, seed, 1.0), 0.0) for seed in range(seeds)]
    for arm, loss in losses.items():
        for level in range(1, LEVELS + 1):
            runs += [made(run(arm, level, s, 0.8**level), loss) for s in range(seeds)]
    recipe = {"model": "dcgan", "task": "generation/digits", "compare": "paired"}
    recipe |= {"seeds": list(range(seeds)), "controls": list(losses)[1:], "name": "dcgan-digits"}
    one = images_of(**images)  # type: ignore[arg-type]
    shown = Images(0, LEVELS, dict.fromkeys((DENSE, *losses), one))
    return Results(recipe, "cfd", False, 0.2, runs, margin_share=0.05, images=shown)


@pytest.fixture(autouse=True)
def coarse(monkeypatch: pytest.MonkeyPatch) -> None:
    """Draw plots with few pixels; grids of images are looked at, and keep theirs."""
    monkeypatch.setattr(figures, "DPI", 30)


@pytest.fixture(scope="module")
def whole() -> Results:
    return generated()


def pixels(png: bytes) -> np.ndarray:
    """Return a figure as bytes of colour, (height, width, 3)."""
    from matplotlib.image import imread

    return np.rint(255 * imread(io.BytesIO(png))[..., :3]).astype(np.uint8)


def by_name(found: Sequence[Picture]) -> dict[str, Picture]:
    return {picture.name: picture for picture in found}


# -- grids ---------------------------------------------------------------------------------


def test_one_figure_for_each_thing_that_was_made(whole: Results) -> None:
    assert list(by_name(samples.sample_pictures(whole))) == [
        *("samples", "reconstructions", "interpolation")
    ]
    gan = samples.sample_pictures(generated(auto=False))
    assert list(by_name(gan)) == ["samples", "interpolation"]
    assert samples.sample_pictures(replace(whole, images=None)) == []
    assert samples.sample_pictures(replace(whole, images=Images(0, 4, {}))) == []
    only = {arm: {n: i for n, i in one.items() if n[0] in "or"} for arm, one in _arms(whole)}
    autoencoder = samples.sample_pictures(replace(whole, images=Images(0, LEVELS, only)))
    assert list(by_name(autoencoder)) == ["reconstructions"]


def _arms(results: Results) -> list[tuple[str, dict[str, np.ndarray]]]:
    assert results.images
    return list(results.images.arms.items())


@pytest.mark.parametrize(("theme", "paper"), [(LIGHT, 255), (DARK, (21, 24, 28))])
@pytest.mark.parametrize("channels", [1, 3])
def test_every_image_is_there_pixel_by_pixel(theme, paper, channels) -> None:
    results = generated({TICKET: 0.0}, 2, channels=channels)
    assert results.images
    rng = np.random.default_rng(channels)
    noise = {arm: rng.integers(0, 256, (32, channels, 8, 8), np.uint8) for arm in (DENSE, TICKET)}
    arms = {arm: {"samples": images} for arm, images in noise.items()}
    (picture,) = samples.sample_pictures(replace(results, images=Images(0, LEVELS, arms)))
    found = pixels(picture.light if theme is LIGHT else picture.dark)
    scale, pitch = 8, 8 * 8 + samples.GAP
    left = found.shape[1] - samples.EDGE - (16 * pitch - samples.GAP)
    block = 2 * pitch - samples.GAP + samples.BLOCK
    assert found.shape[0] == 2 * block - samples.BLOCK + 2 * samples.EDGE
    for i, images in enumerate(noise.values()):
        for k, image in enumerate(images):
            y = samples.EDGE + i * block + k // 16 * pitch
            x = left + k % 16 * pitch
            tile = found[y : y + 64, x : x + 64]
            shown = np.broadcast_to(image.transpose(1, 2, 0), (8, 8, 3))
            assert (tile == shown.repeat(scale, 0).repeat(scale, 1)).all()
            assert (found[y, x + 64 : x + pitch] == paper).all()
    inked = (found[:, : left - 1] != paper).any(axis=(0, 2))
    assert inked.any(), "no label"
    assert not inked[:3].any()
    assert not inked[-3:].any(), "a label runs into the images"


def test_labels_have_room_whatever_the_arm_is_called(whole: Results) -> None:
    name = "generator-random-layerwise-shuffle"
    runs = [replace(r, arm=name) if r.arm == "reinit" else r for r in whole.runs]
    arms = {name if arm == "reinit" else arm: made for arm, made in _arms(whole)}
    long = replace(whole, runs=runs, images=Images(0, LEVELS, arms))
    for results in (whole, long):
        found = pixels(by_name(samples.sample_pictures(results))["samples"].light)
        left = found.shape[1] - samples.EDGE - (16 * 68 - samples.GAP)
        inked = np.flatnonzero((found[:, :left] != 255).any(axis=(0, 2)))
        assert 6 < left - inked.max() < 90


def test_an_arm_without_images_is_left_out_and_arms_stand_in_order(whole: Results) -> None:
    arms = dict(reversed(_arms(whole)))
    del arms["reinit"]
    blocks = samples._blocks(replace(whole, images=Images(0, LEVELS, arms)), "samples")
    assert [block.arm for block in blocks] == [DENSE, TICKET, "shuffle", "random-erk"]
    value = whole.values(TICKET, LEVELS)[0]
    assert blocks[1].lines == ("sparsity 59.0 %", f"cfd {value:.2f}")
    assert blocks[0].lines == (f"cfd {whole.values(DENSE, 0)[0]:.2f}",)


def test_an_arm_has_the_colour_of_the_report(whole: Results) -> None:
    arms = [DENSE, TICKET, "some-other", *CONTROLS]
    (picture, *_) = samples.sample_pictures(whole, arms)
    colour = bytes.fromhex(looks(arms, LIGHT)["random-erk"].colour[1:])
    assert (pixels(picture.light) == np.frombuffer(colour, np.uint8)).all(axis=2).any()


@pytest.mark.parametrize(
    ("size", "columns", "scale"), [(8, 16, 8), (28, 16, 2), (32, 16, 2), (64, 16, 1), (128, 8, 1)]
)
def test_a_mosaic_enlarges_by_a_whole_number_and_stays_on_the_page(size, columns, scale) -> None:
    images = np.zeros((32, 1, size, size), np.uint8)
    high, wide, _ = samples.mosaic(images, (255, 255, 255)).shape
    pitch = scale * size + samples.GAP
    assert (high, wide) == (32 // columns * pitch - samples.GAP, columns * pitch - samples.GAP)
    assert wide <= samples.WIDE
    apart = samples.mosaic(images, (255, 255, 255), paths=True).shape[1] - wide
    assert apart == (samples.PART if columns == 16 else 0)
    few = samples.mosaic(images[:3], (255, 255, 255))
    assert few.shape[1] == 3 * pitch - samples.GAP


# -- the floor -----------------------------------------------------------------------------


def test_the_floor_is_in_the_figure_the_caption_and_the_table_of_levels(whole: Results) -> None:
    from matplotlib.figure import Figure

    def drawn(results: Results) -> tuple[list[list[str]], str]:
        figure = Figure(figsize=(8.4, 4.2))
        caption = figures.draw_accuracy(figure, results, looks(results.arms(), LIGHT))
        return [[t.get_text() for t in axes.texts] for axes in figure.axes], caption

    name = "real against real"
    texts, caption = drawn(whole)
    assert texts == [[], [name]], "the frame is around dense, the lower panel shows everything"
    assert "Thin dots: the cfd of one sample of real images against another, 0.42." in caption
    near = _with_floor(whole, 3.6)
    assert drawn(near)[0] == [[name], [name]]
    gentle = generated({TICKET: 0.1}, 3)
    assert drawn(gentle)[0] == [[], [name]], "real data is far: a second panel reaches it"
    assert "collapse" not in drawn(gentle)[1]
    assert drawn(_with_floor(gentle, 3.8))[0] == [[name]]
    blind = replace(gentle, runs=[one for one in gentle.runs if one.arm != DENSE])
    assert drawn(blind)[0] == [[]]
    assert "Out of the frame: the cfd of one sample" in drawn(blind)[1]
    without = _with_floor(whole, None)
    assert drawn(without)[0] == [[], []]
    assert "real" not in drawn(without)[1]
    table = tables.accuracy_table(whole)
    assert table.rows[-1] == (name, tables.NONE, *["0.42"] * 5)
    assert tables.accuracy_table(without).rows == table.rows[:-1]


def _with_floor(results: Results, value: float | None) -> Results:
    runs = []
    for one in results.runs:
        test = {k: v for k, v in one.metrics["test"].items() if k != "cfd_floor"}
        test |= {} if value is None else {"cfd_floor": value}
        runs.append(replace(one, metrics={**one.metrics, "test": test}))
    return replace(results, runs=runs)


# -- further metrics and judges ------------------------------------------------------------


def test_further_metrics_are_means_by_arm_at_the_last_level(whole: Results) -> None:
    table = measures.measures_table(whole)
    assert table.columns == ("metric", "better", DENSE, TICKET, *CONTROLS)
    rows = {row[0]: row[1:] for row in table.rows}
    assert "density (Naeem et al. 2020)" in rows
    assert not {"cfd", "loss", "density", "cfd, real against real"} & rows.keys()
    values = whole.values("random-erk", LEVELS, metric="kid").values()
    assert rows["kernel distance (Bińkowski et al. 2018)"][-1].startswith(
        f"{sum(values) / 5:.4f} ± "
    )
    assert rows["memorised share (Alaa et al. 2022)"] == ("lower", *["0 ± 0"] * 5)
    assert [row[:2] for row in table.rows[:2]] == [
        ("cfd by judge 1", "lower"),
        ("cfd by judge 2", "lower"),
    ]
    assert "41.0 % of the weights remain" in table.note


def test_further_metrics_need_images_and_some_number(whole: Results) -> None:
    plain = [replace(one, pictures="") for one in _with_floor(whole, None).runs]
    assert measures.measures_table(replace(whole, runs=plain)).rows == ()
    assert measures.agreement_table(replace(whole, runs=plain)).rows == ()
    few = {"cfd", "cfd_floor", "loss", "kid", "recall"}
    runs = []
    for one in whole.runs:
        test = {k: v for k, v in one.metrics["test"].items() if k in few}
        runs.append(replace(one, metrics={"test": test}))
    assert measures.measures_table(replace(whole, runs=runs)).rows == ()
    assert measures.measures_table(replace(whole, runs=[])).rows == ()


def test_judges_agree_as_far_as_spearman_says(whole: Results) -> None:
    from scipy.stats import rankdata

    table = measures.agreement_table(whole)
    assert [row[:2] for row in table.rows] == [
        ("cfd by judge 0", "cfd by judge 1"),
        ("cfd by judge 0", "cfd by judge 2"),
        ("cfd by judge 1", "cfd by judge 2"),
    ]
    ranks = [rankdata([r.metrics["test"][n] for r in whole.runs]) for n in ("cfd", "cfd_1")]
    assert table.rows[0][2:] == (f"{np.corrcoef(ranks)[0, 1]:.3f}", str(len(whole.runs)))
    same = [replace(r, metrics={"test": {**r.metrics["test"], "cfd_1": 2.0}}) for r in whole.runs]
    assert measures.agreement_table(replace(whole, runs=same)).rows[0][2] == tables.NONE
    assert measures.agreement_table(replace(whole, runs=whole.runs[:2])).rows == ()


def test_what_is_of_one_distance_stands_together() -> None:
    vae = generated({TICKET: 0.0}, 2)
    runs = []
    for one in vae.runs:
        test = one.metrics["test"]
        runs.append(replace(one, metrics={"test": {"nelbo": test["cfd"], "kl": 3.0, **test}}))
    table = measures.measures_table(replace(vae, headline="nelbo", runs=runs))
    assert [row[:2] for row in table.rows[:6]] == [
        ("kl (nats)", tables.NONE),
        ("cfd", "lower"),
        ("cfd, real against real", tables.NONE),
        ("cfd by judge 1", "lower"),
        ("cfd by judge 2", "lower"),
        ("kernel distance (Bińkowski et al. 2018)", "lower"),
    ]


# -- lower is better -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("loss", "name", "ruled", "best"),
    [(-1.0, "WINNING", "yes", LEVELS), (0.05, "WINNING", "no", 1), (2.5, "FAIL", "no", 1)],
)
def test_lower_is_better_in_verdicts_words_and_frames(loss, name, ruled, best) -> None:
    results = generated({**LOSSES, TICKET: loss, "shuffle": 4.0, "reinit": 4.5})
    verdicts = judge(results)
    last = verdicts[-1]
    assert last.name == name
    assert "(lower is better)" in last.sentence
    assert (last.verdict.against.difference or 0) == pytest.approx(loss, abs=0.05)
    assert all(control.better for control in last.verdict.controls)
    table = tables.verdict_table(results, verdicts)
    assert table.columns[-1] == "≤ dense"
    assert table.rows[-1][-1] == ruled
    found, dense = series.best_ticket(results), series.dense_point(results)
    assert found
    assert dense
    assert found.level == best
    shown = [p for arm in results.arms() for p in series.points(results, arm)]
    low, high, cut = figures._frame(results, shown, dense) or (0, 0, False)
    assert cut, "random-erk collapses out of the frame"
    assert low < min(p.low for p in shown), "what is good is never cut"
    assert found.high < high < 13
    said = " ".join(words.findings(results, verdicts))
    assert ("from 80.0 %" in said) == (name != "FAIL")


# -- the report ----------------------------------------------------------------------------


def test_a_relative_margin_is_said_as_one(whole: Results) -> None:
    share = "0.2 (5 % of the dense mean)"
    assert f"the margin {share}" in by_name(pictures(whole))["accuracy"].caption
    assert tables.verdict_table(whole, judge(whole)).note.startswith(f"Margin {share}. p: ")
    assert share in " ".join(words.limits([whole]))


def test_the_report_shows_all_of_it_and_its_json_has_no_images(
    whole: Results, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(heatmap, "DPI", 30)
    paths = write_report([whole], tmp_path / "report")
    text = paths["markdown"].read_text(encoding="utf-8")
    heads = [line for line in text.splitlines() if line.startswith("### ")]
    at = heads.index("### Samples by arm")
    assert heads[at - 1 : at + 5] == [
        "### Test cfd by level and arm",
        "### Samples by arm",
        "### Reconstructions",
        "### Interpolation",
        "### Other test metrics at level 4",
        "### Do the judges agree?",
    ]
    assert "dcgan-digits-samples.png" in paths
    assert paths["html"].read_text(encoding="utf-8").count("<figure>") == 6
    (recipe,) = json.loads(paths["json"].read_text(encoding="utf-8"))["recipes"]
    back = Results.from_json(recipe["results"])
    assert back == whole
    assert back.images is None
    assert back.margin_share == 0.05
    assert back.runs[0].pictures == "train/dense-0-0/images.safetensors"


def test_json_of_before_reads_and_says_nothing_new() -> None:
    plain = generated({TICKET: 0.0}, 1)
    old = replace(plain, margin_share=0.0, runs=[replace(r, pictures="") for r in plain.runs])
    data = json.loads(json.dumps(old.to_json()))
    assert not {"images", "margin_share"} & data.keys()
    assert not {"pictures", "edges"} & data["runs"][0].keys()
    assert Results.from_json(data) == old
