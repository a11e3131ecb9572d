"""Grids of what generative models made: samples, interpolations and reconstructions by arm.

Every picture has the same geometry: an arm's label at the left and its images at the right, at a
whole number of pixels a pixel, so that what is small stays sharp.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lth_zoo.trials.results import DENSE, TICKET, Results, Run

from . import series
from .figures import DPI, Picture
from .heatmap import picture_of
from .panels import percent
from .style import Theme, looks
from .tables import number

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.figure import Figure

#: Pixels: about how large an image is, how wide all of them are, and the paper between.
TILE, WIDE = 66, 1130
GAP, PART, BLOCK, EDGE = 4, 16, 20, 4
#: Images beside each other, fewer where they are large; a path through latent space has 8.
COLUMNS, PATH = 16, 8
#: Inches of a letter of an arm's name and of the lines below it, between lines, and beside a label.
BOLD, LETTER, LINE, BESIDE = 0.088, 0.061, 0.15, 0.16
#: The name of the arm whose images are the data's own.
REAL = "originals"


@dataclass(frozen=True)
class Block:
    """One arm's images, (n, channels, height, width), and the lines of its label."""

    arm: str
    lines: tuple[str, ...]
    images: np.ndarray


def sample_pictures(results: Results, arms: Iterable[str] = ()) -> list[Picture]:
    """Draw what the recipe's first seed made at its last level; nothing where there are no images.

    ``arms`` are all the arms of a report, so that one arm has one colour in all of it.
    """
    made = results.images
    if made is None:
        return []
    arms = [*arms, *results.arms()]
    at = f"Seed {made.seed}, level {made.level}."
    values = f"Below each arm: its sparsity and this seed's test {results.headline}."
    better = "Higher is better." if results.higher_is_better else "Lower is better."
    samples = _blocks(results, "samples")
    paths = [b for b in _blocks(results, "interpolation") if b.arm in (DENSE, TICKET)]
    pairs = [b for b in _blocks(results, "reconstructions") if b.arm in (DENSE, TICKET)]
    real = next((i[REAL] for i in made.arms.values() if REAL in i), None) if pairs else None
    pairs = [*([Block(REAL, (), real)] if real is not None else []), *pairs]
    shown = {
        "samples": (
            "Samples by arm",
            f"{at} The same place in every block is the same noise. {values} {better}",
            samples,
        ),
        "reconstructions": (
            "Reconstructions",
            f"{at} Images of the test part above, and below them what each network makes of them.",
            pairs,
        ),
        "interpolation": (
            "Interpolation",
            f"{at} Each run of {PATH} images is one path through latent space, the same for every "
            "arm.",
            paths,
        ),
    }
    return [
        picture_of(name, title, caption, _drawing(blocks, arms, name == "interpolation"))
        for name, (title, caption, blocks) in shown.items()
        if blocks
    ]


def _blocks(results: Results, name: str) -> list[Block]:
    """Return the arms that made images of that name, dense and ticket first."""
    made = results.images
    assert made is not None
    order = [DENSE, TICKET, *series.controls(results)]
    found = []
    for arm in order:
        images = made.arms.get(arm, {}).get(name)
        if images is not None and images.size:
            runs = results.select(arm, 0 if arm == DENSE else made.level)
            run = next((run for run in runs if run.seed == made.seed), None)
            flat = images.reshape(-1, *images.shape[-3:])
            found.append(Block(arm, _lines(results, run), flat))
    return found


def _lines(results: Results, run: Run | None) -> tuple[str, ...]:
    """Return what stands below an arm's name."""
    if run is None:
        return ()
    value = number(series.headline(run, results), series.decimals(results))
    if run.arm in series.other_sizes(results):
        size = [f"dense, {run.parameters:,} parameters"]
    else:
        size = [] if run.arm == DENSE else [f"sparsity {percent(run.sparsity)} %"]
    return (*size, f"{results.headline} {value}")


def _drawing(
    blocks: Sequence[Block], arms: Sequence[str], paths: bool
) -> Callable[[Figure, Theme], None]:
    def draw(figure: Figure, theme: Theme) -> None:
        look = looks(arms, theme)
        paper = _rgb(theme.paper)
        mosaics = [mosaic(block.images, paper, paths) for block in blocks]
        lines = max(len(block.lines) for block in blocks)
        canvas, middles = stacked(mosaics, paper, least=round(DPI * LINE * (1 + lines)))
        height, width = canvas.shape[:2]
        names = [BOLD * len(block.arm) for block in blocks]
        below = [LETTER * len(line) for block in blocks for line in block.lines]
        label = round(DPI * (max(*names, *below) + BESIDE))
        wide, high = label + width + EDGE, height + 2 * EDGE
        figure.set_layout_engine("none")
        figure.set_size_inches(wide / DPI, high / DPI)
        axes = figure.add_axes((label / wide, EDGE / high, width / wide, height / high))
        axes.imshow(canvas, interpolation="nearest", aspect="auto")
        axes.set_axis_off()
        for block, middle in zip(blocks, middles, strict=True):
            colour = look[block.arm].colour if block.arm in look else theme.ink
            _label(figure, block, 1 - (EDGE + middle) / high, colour)

    return draw


def _rgb(colour: str) -> tuple[int, ...]:
    return tuple(bytes.fromhex(colour.removeprefix("#")))


def _label(figure: Figure, block: Block, middle: float, colour: str) -> None:
    """Write an arm's name and lines, centred on the middle of its images."""
    step = LINE / figure.get_figheight()
    first = middle + step * len(block.lines) / 2
    style: dict[str, Any] = {"ha": "left", "va": "center"}
    beside = 0.04 / figure.get_figwidth()
    figure.text(beside, first, block.arm, color=colour, fontsize=9.5, weight="bold", **style)
    for number_, line in enumerate(block.lines, 1):
        figure.text(beside, first - step * number_, line, fontsize=8, **style)


def mosaic(images: np.ndarray, paper: Sequence[int], paths: bool = False) -> np.ndarray:
    """Return images, (n, channels, height, width) in uint8, as rows of one picture, (h, w, 3).

    Each is enlarged by a whole number, to about 66 pixels. With ``paths`` there is more paper
    after every eighth.
    """
    import numpy as np

    _, channels, high, wide = images.shape
    scale = max(1, TILE // max(high, wide))
    tiles = images.transpose(0, 2, 3, 1)[..., [0, 0, 0] if channels < 3 else [0, 1, 2]]
    tiles = tiles.repeat(scale, axis=1).repeat(scale, axis=2)
    high, wide = tiles.shape[1:3]
    columns = COLUMNS
    while columns > 1 and columns * (wide + GAP) > WIDE:
        columns //= 2
    columns = min(columns, len(tiles))
    rows = -(-len(tiles) // columns)
    parts = (columns - 1) // PATH if paths else 0
    size = (rows * (high + GAP) - GAP, columns * (wide + GAP) - GAP + parts * PART, 3)
    canvas = np.full(size, paper, dtype=np.uint8)
    for i, tile in enumerate(tiles):
        row, column = divmod(i, columns)
        y, x = row * (high + GAP), column * (wide + GAP) + (column // PATH * PART if paths else 0)
        canvas[y : y + high, x : x + wide] = tile
    return canvas


def stacked(
    mosaics: Sequence[np.ndarray], paper: Sequence[int], least: int = 0
) -> tuple[np.ndarray, list[float]]:
    """Return pictures below each other as one, and how far down the middle of each is.

    Each takes a height of ``least`` at least, and stands in its middle.
    """
    import numpy as np

    heights = [max(least, part.shape[0]) for part in mosaics]
    tops = [sum(heights[:i]) + i * BLOCK for i in range(len(mosaics))]
    size = (tops[-1] + heights[-1], max(part.shape[1] for part in mosaics), 3)
    canvas = np.full(size, paper, dtype=np.uint8)
    for part, top, height in zip(mosaics, tops, heights, strict=True):
        first = top + (height - part.shape[0]) // 2
        canvas[first : first + part.shape[0], : part.shape[1]] = part
    return canvas, [top + height / 2 for top, height in zip(tops, heights, strict=True)]
