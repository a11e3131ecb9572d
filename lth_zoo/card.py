"""The card of a ticket: a README that says what it is, how good, and how to use it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .ticket import Ticket


def card(ticket: Ticket) -> str:
    """Return the Markdown of a ticket's README; nothing is ever read back from it."""
    meta, counts = ticket.meta, ticket.counts()
    recipe = meta.get("recipe", {})
    title = f"{meta.get('model', 'Model')} ticket at {ticket.sparsity:.2%} sparsity"
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
    if pretrained := ticket.pretrained:
        lines += [
            "",
            f"It starts from the pre-trained checkpoint `{pretrained}`, which is not copied here: "
            "the ticket holds its masks, the head, and a digest of each of "
            f"{len(pretrained.digests)} tensors.",
        ]
    if recipe:
        lines += ["", *_facts(meta, recipe)]
    if meta.get("curve"):
        lines += ["", "## Sparsity and accuracy along the search", "", *_curve(meta)]
    if meta.get("verdict"):
        lines += ["", "## Verdict", "", str(meta["verdict"]["sentence"])]
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
            if pretrained
            else []
        ),
        "```",
        "",
        "An unstructured ticket is not faster by itself: its tensors are dense with zeros.",
        "",
    ]
    return "\n".join(lines)


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
    metric = meta.get("headline", "accuracy")
    lines = [f"| level | weights kept | test {metric} (seed {meta.get('seed')}) |", "|---|---|---|"]
    return lines + [f"| {r['level']} | {r['density']:.2%} | {r['value']:.2f} |" for r in rows]
