"""The card of a ticket: a README that says what it is, how good, and how to use it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .ticket import Ticket


#: What the bits of an entry are about.
EDGES_ARE = {"graph/edges": "undirected edges", "graph/arcs": "directed edges"}


def card(ticket: Ticket) -> str:
    """Return the Markdown of a ticket's README; nothing is ever read back from it."""
    meta, counts = ticket.meta, ticket.counts()
    recipe = meta.get("recipe", {})
    amounts = f"{ticket.sparsity:.2%} sparsity"
    if ticket.graph is not None:
        amounts = f"{ticket.sparsity:.2%} weight and {ticket.graph_sparsity:.2%} graph sparsity"
    title = f"{meta.get('model', 'Model')} ticket at {amounts}"
    lines = [
        "---",
        "library_name: lth_zoo",
        "tags: [lottery-ticket, pruning, sparsity]",
        "---",
        "",
        f"# {title}",
        "",
        f"Ticket `{ticket.id[:12]}`: {counts['kept']:,} of {counts['prunable']:,} prunable weights "
        f"kept ({counts['all']:,} values in all).",
    ]
    lines += _origin(ticket)
    if recipe:
        lines += ["", *_facts(meta, recipe)]
    if meta.get("curve"):
        lines += ["", "## Sparsity and accuracy along the search", "", *_curve(meta)]
    if meta.get("verdict"):
        lines += ["", "## Verdict", "", str(meta["verdict"]["sentence"])]
    with_graph = ticket.graph is not None
    lines += [
        "",
        "## Use",
        "",
        "```python",
        "import lth_zoo as lz",
        "",
        'ticket = lz.Ticket.from_pretrained("this-folder-or-hub-id")',
        "model = ticket.materialize()  # an ordinary nn.Module, masked and rewound",
        "with ticket.masks_for(model).enforced(model, optimizer):",
        "    ...  # any training loop",
        *(
            ["", "masks = ticket.apply_to(other)  # any model on that checkpoint, checked first"]
            if ticket.pretrained
            else []
        ),
        *(
            ["", "data = ticket.restrict(data)  # the same graph, less the pruned edges"]
            * with_graph
        ),
        "```",
        "",
        "An unstructured ticket is not faster by itself: its tensors are dense with zeros."
        + " The edges that are gone save aggregation, in any layer." * with_graph,
        "",
    ]
    return "\n".join(lines)


def _origin(ticket: Ticket) -> list[str]:
    """Return what the ticket leaves to a checkpoint, and what it keeps of a graph."""
    lines, counts = [], ticket.counts()
    if pretrained := ticket.pretrained:
        lines += [
            "",
            f"It starts from the pre-trained checkpoint `{pretrained}`, which is not copied here: "
            "the ticket holds its masks, the head, and a digest of each of "
            f"{len(pretrained.digests)} tensors.",
        ]
    if ticket.graph is not None:
        entry = next(iter(ticket.masks.data))
        lines += [
            "",
            f"Of the graph it was found on it keeps {counts['edges_kept']:,} of "
            f"{counts['edges']:,} {EDGES_ARE.get(entry, 'edges')}, between "
            f"{ticket.graph.nodes:,} nodes; they are named here by their nodes.",
        ]
    return lines


def _facts(meta: Mapping[str, Any], recipe: Mapping[str, Any]) -> list[str]:
    finder = recipe.get("finder", {})
    facts = {
        "task": recipe.get("task"),
        "finder": finder.get("name"),
        "rewind": finder.get("rewind"),
        "level": meta.get("level"),
        "seed": meta.get("seed"),
        "search cost": f"{meta['cost']['search_dense_runs']:.1f} dense trainings"
        if meta.get("cost")
        else None,
        "paper": recipe.get("paper") or None,
        "libraries": ", ".join(f"{k} {v}" for k, v in meta.get("versions", {}).items()) or None,
    }
    return [f"- {name}: {value}" for name, value in facts.items() if value is not None]


def _curve(meta: Mapping[str, Any]) -> list[str]:
    rows: Sequence[Mapping[str, Any]] = meta["curve"]
    metric = f"test {meta.get('headline', 'accuracy')} (seed {meta.get('seed')})"
    if any("edge_density" in row for row in rows):
        lines = [f"| level | weights kept | edges kept | {metric} |", "|---|---|---|---|"]
        return lines + [
            f"| {r['level']} | {r['density']:.2%} | {r['edge_density']:.2%} | {r['value']:.2f} |"
            for r in rows
        ]
    lines = [f"| level | weights kept | {metric} |", "|---|---|---|"]
    return lines + [f"| {r['level']} | {r['density']:.2%} | {r['value']:.2f} |" for r in rows]
