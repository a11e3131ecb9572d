"""What is kept of a graph: a table, which edges go, and a drawing where the graph is small."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from lth_zoo.trials.results import TICKET, Results

from .figures import WIDTH, Picture
from .heatmap import picture_of
from .panels import percent
from .style import Theme
from .tables import NONE, Table

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Found = Mapping[str, Any]
#: Graphs with fewer nodes are drawn by their distances, which shows more; it takes longer.
FEW_NODES = 120
#: Nodes of one degree from which on their histogram is logarithmic.
MANY_NODES = 100


def kept_table(results: Results) -> Table:
    """Return counts, homophily, components and degrees of the graph at each level.

    The ticket's levels, then the last level of every arm that keeps other edges.
    """
    title, columns = "What is kept of the graph", _COLUMNS
    found = results.graph
    if found is None:
        return Table("graph", title, columns, ())
    rows = [_row("whole graph", "", found["whole"])]
    last: dict[str, Found] = {}
    for row in found["rows"]:
        if row["arm"] == TICKET:
            rows.append(_row(TICKET, str(row["level"]), row))
        elif row["level"] >= last.get(row["arm"], {"level": 0})["level"]:
            last[row["arm"]] = row
    rows += [_row(arm, str(row["level"]), row) for arm, row in last.items()]
    what = "are one direction each" if found["entry"] == "graph/arcs" else "are undirected"
    note = (
        f"Seed {found['seed']}; {found['nodes']:,} nodes; edges {what}, self-loops apart. "
        f"Homophily: the share of edges between nodes of one label, over {found['labelled']:,} "
        "labelled nodes. Components have two nodes or more; isolated nodes stay, and are trained "
        "and tested on. An arm that is not listed keeps the ticket's edges, or all."
    )
    return Table("graph", title, columns, tuple(rows), note)


_COLUMNS = (
    *("arm", "level", "% of edges", "kept", "removed", "homophily kept", "homophily removed"),
    *("components", "isolated", "degree: least, quartiles, most"),
)


def _row(arm: str, level: str, row: Found) -> tuple[str, ...]:
    total = row["kept"] + row["removed"]
    return (
        *(arm, level, percent(row["kept"] / total) if total else NONE),
        *(f"{row['kept']:,}", f"{row['removed']:,}"),
        *(_share(row["homophily_kept"]), _share(row["homophily_removed"])),
        *(f"{row['components']:,}", f"{row['isolated']:,}"),
        " ".join(f"{degree:,.4g}" for degree in row["degrees"]) or NONE,
    )


def _share(value: float | None) -> str:
    return NONE if value is None else f"{value:.3f}"


def graph_findings(results: Results) -> tuple[str, ...]:
    """Return which edges went and what is left of the graph, in a sentence."""
    found = results.graph
    if found is None:
        return ()
    removed, rows = found["removed"], [r for r in found["rows"] if r["arm"] == TICKET]
    shares = {g["between"]: g["removed"] / g["edges"] for g in removed["agreement"]}
    if not rows or removed["arm"] != TICKET:
        return ()
    last, whole = rows[-1], found["whole"]
    lines = []
    if {"same label", "different labels"} <= shares.keys():
        lines.append(
            f"Of the edges between nodes of one label {percent(shares['same label'])} % went, of "
            f"those between labels {percent(shares['different labels'])} %: homophily "
            f"{_share(whole['homophily_kept'])} before, {_share(last['homophily_kept'])} after."
        )
    lines.append(
        f"{last['isolated'] - whole['isolated']:,} of {found['nodes']:,} nodes lost their last "
        f"edge; connected components: {whole['components']:,} before, {last['components']:,} after."
    )
    return tuple(lines)


# -- figures -------------------------------------------------------------------------------


def graph_pictures(results: Results) -> list[Picture]:
    """Draw which edges the ticket lacks at its last level and, of a small graph, the graph."""
    found = results.graph
    if found is None or not any(group["edges"] for group in found["removed"]["products"]):
        return []
    removed = found["removed"]
    at = f"{removed['arm']}, level {removed['level']}, seed {found['seed']}"

    def draw(figure: Figure, theme: Theme) -> None:
        figure.set_size_inches(WIDTH, 3.5)
        left, middle, right = figure.subplots(1, 3, width_ratios=(0.8, 1.1, 1.2))
        middle.sharey(left)
        _agreement(left, removed["agreement"], removed["products"], theme)
        _products(middle, removed["products"], theme)
        _degrees(right, removed["degrees"], theme)

    caption = (
        f"{at}. Left and middle: the share of the edges that went, by whether the labels of both "
        "ends agree, and by the product of the ends' degrees in the whole graph (bins of about as "
        "many edges); dashes: of all edges, where a random choice would lie. Right: nodes by "
        "degree, before and after."
    )
    pictures = [picture_of("removed-edges", "Which edges go", caption, draw)]
    if "drawing" in found:
        pictures.append(_drawing(found["drawing"], at))
    return pictures


def _overall(axes: Axes, groups: Sequence[Found], theme: Theme) -> None:
    total = sum(group["edges"] for group in groups)
    share = 100 * sum(group["removed"] for group in groups) / total
    axes.axhline(share, color=theme.ink, linestyle="--", linewidth=1.2)


def _agreement(axes: Axes, groups: Sequence[Found], every: Sequence[Found], theme: Theme) -> None:
    groups = groups or [
        {
            "between": "all (no labels)",
            "edges": sum(group["edges"] for group in every),
            "removed": sum(group["removed"] for group in every),
        }
    ]
    shares = [100 * group["removed"] / group["edges"] for group in groups]
    colours = [theme.ticket, theme.controls[0], theme.muted]
    axes.bar(range(len(groups)), shares, width=0.6, color=colours[: len(groups)])
    names = [group["between"].replace(" ", "\n", 1) for group in groups]
    heads = [f"{name}\n{share:.1f} %" for name, share in zip(names, shares, strict=True)]
    axes.set_xticks(range(len(groups)), heads, fontsize=8)
    axes.grid(False, axis="x")
    axes.set_ylabel("% of these edges removed")
    _overall(axes, every, theme)


def _products(axes: Axes, groups: Sequence[Found], theme: Theme) -> None:
    shares = [100 * group["removed"] / group["edges"] for group in groups]
    axes.bar(range(len(groups)), shares, width=0.8, color=theme.ticket)
    names = [_range(group["low"], group["high"]) for group in groups]
    axes.set_xticks(range(len(groups)), names, rotation=45, ha="right", fontsize=7.5)
    axes.grid(False, axis="x")
    axes.tick_params(labelleft=False)
    axes.set_xlabel("product of degrees")
    _overall(axes, groups, theme)


def _degrees(axes: Axes, groups: Sequence[Found], theme: Theme) -> None:
    from matplotlib.ticker import MaxNLocator

    places = range(len(groups))
    for side, (name, colour) in enumerate((("before", theme.muted), ("after", theme.ticket))):
        counts = [group[name] for group in groups]
        axes.bar([p + 0.4 * side - 0.2 for p in places], counts, 0.4, color=colour, label=name)
    names = [_range(group["low"], group["high"]) for group in groups]
    axes.set_xticks(list(places), names, rotation=45, ha="right", fontsize=7.5)
    axes.grid(False, axis="x")
    if max(group["before"] for group in groups) > MANY_NODES:  # or the few hubs are not seen
        axes.set_yscale("log")
        axes.set_ylim(bottom=0.7)
        axes.set_ylabel("nodes (log scale)")
    else:
        axes.yaxis.set_major_locator(MaxNLocator(nbins="auto", integer=True))
        axes.set_ylabel("nodes")
    axes.set_xlabel("degree")
    axes.legend(fontsize=8)


def _range(low: int, high: int) -> str:
    return f"{_short(low)}" if low == high else f"{_short(low)}-{_short(high)}"


def _short(number: int) -> str:
    """Return a count in few characters.

    >>> _short(950), _short(12_400), _short(3_000_000)
    ('950', '12k', '3M')
    """
    for size, unit in ((1_000_000, "M"), (1_000, "k")):
        if number >= 10 * size or (number >= size and number % size == 0):
            return f"{number // size}{unit}"
    return str(number)


def _drawing(found: Found, at: str) -> Picture:
    labels: Sequence[int] | None = found["labels"]
    nodes = 1 + max((max(side, default=-1) for side in found["pairs"]), default=-1)
    nodes = max(nodes, len(labels or ()))
    places = layout(found["pairs"], nodes)
    kept = [bool(bit) for bit in found["kept"]]

    def draw(figure: Figure, theme: Theme) -> None:
        figure.set_size_inches(WIDTH, 6.0)
        axes = figure.subplots()
        axes.set_axis_off()
        axes.set_aspect("equal")
        _edges(axes, found["pairs"], kept, places, theme)
        size = max(14.0, min(110.0, 6_000.0 / max(nodes, 1)))
        for label, colour in _colours(labels, nodes, theme).items():
            here = [places[n] for n in range(nodes) if not labels or labels[n] == label]
            x, y = zip(*here, strict=True)
            style: dict[str, Any] = {"color": colour, "edgecolors": theme.paper, "linewidths": 0.8}
            axes.scatter(x, y, s=size, zorder=3, label=f"{label}", **style)
        if labels:
            title = {"title": "label", "title_fontsize": 9, "fontsize": 9}
            figure.legend(loc="outside right upper", handletextpad=0.2, **title)

    caption = (
        f"{at}. Strong lines: edges that it keeps; faint ones: those it lacks. "
        + ("Nodes are coloured by label. " * bool(labels))
        + "Places are those of the whole graph's layout and mean nothing by themselves."
    )
    return picture_of("graph", "The kept graph", caption, draw)


def _edges(
    axes: Axes,
    pairs: Sequence[Sequence[int]],
    kept: Sequence[bool],
    places: Sequence[tuple[float, float]],
    theme: Theme,
) -> None:
    from matplotlib.collections import LineCollection

    thin = max(0.3, min(1.0, (250 / max(len(kept), 1)) ** 0.5))
    for on, colour, width, alpha in ((False, theme.muted, 0.7, 0.4), (True, theme.ink, 1.3, 0.85)):
        ends = [ab for ab, bit in zip(zip(*pairs, strict=True), kept, strict=True) if bit == on]
        lines = [(places[a], places[b]) for a, b in ends]
        style: dict[str, Any] = {"colors": colour, "linewidths": width * thin, "alpha": alpha}
        axes.add_collection(LineCollection(lines, zorder=1 + on, **style))


def _colours(labels: Sequence[int] | None, nodes: int, theme: Theme) -> dict[int, str]:
    palette = (theme.ticket, *theme.controls)
    if not labels:
        return {0: theme.ticket} if nodes else {}
    known = sorted(set(labels))
    named = [label for label in known if label >= 0]
    colours = {label: palette[i % len(palette)] for i, label in enumerate(named)}
    return {**({-1: theme.muted} if -1 in known else {}), **colours}


def layout(pairs: Sequence[Sequence[int]], nodes: int) -> list[tuple[float, float]]:
    """Return a place for each node, the same at every call; components lie side by side."""
    import networkx

    graph = networkx.Graph()
    graph.add_nodes_from(range(nodes))
    graph.add_edges_from(zip(*pairs, strict=True))
    parts = sorted(networkx.connected_components(graph), key=lambda part: (-len(part), min(part)))
    places: dict[int, tuple[float, float]] = {}
    wide = x = y = high = 0.0
    for part in parts:
        # A component takes room as it has nodes; rows are filled from left to right.
        radius = len(part) ** 0.5
        wide = wide or max(2.0 * radius, 2.0 * nodes**0.5) + 1.0
        if x and x + 2 * radius > wide:
            x, y, high = 0.0, y - high, 0.0
        for node, (dx, dy) in _placed(graph.subgraph(sorted(part))).items():
            places[node] = (x + radius * (1 + 1.25 * dx), y - radius * (1 - dy))
        x, high = x + 2 * radius + 0.5, max(high, 2 * radius + 0.5)
    return [places[node] for node in range(nodes)]


def _placed(part: Any) -> dict[int, tuple[float, float]]:
    """Return the places of a connected component's nodes, within -1 to 1."""
    import networkx

    start = networkx.spring_layout(part, seed=0, iterations=100)
    if 2 < len(part) <= FEW_NODES:
        start = networkx.kamada_kawai_layout(part, pos=start)
    return {node: (float(x), float(y)) for node, (x, y) in start.items()}
