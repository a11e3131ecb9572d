"""What is prunable of a Hugging Face Transformer, by module type and place; no names of families.

A model is a base (``model.base_model``) under a task's head. What may be pruned are the linear
layers of its blocks: every ``Linear`` or ``Conv1D`` in a ``ModuleList`` of the base whose weight
is no embedding, each tensor once. That leaves out embeddings and their projections, poolers,
norms, biases and heads.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from lth_zoo.errors import BadInput
from lth_zoo.prunable import Part, Prunable, Units

if TYPE_CHECKING:
    from torch import Tensor, nn

    from lth_zoo.masks import Masks

#: Modules known to hold several matrices in one, one after the other along the output. Others
#: interleave them head by head, so a fused matrix of an unknown class is left alone.
FUSED = ("ModernBertAttention", "GPT2Attention", "ModernBertMLP")
#: What the libraries call the width of an attention head.
WIDTHS = ("attention_head_size", "head_dim", "key_value_proj_dim")


def base_of(model: nn.Module) -> nn.Module:
    """Return the model without a task's head; a model that is no Hugging Face one is its own."""
    base: nn.Module = getattr(model, "base_model", model)
    return base


def prefix_of(model: nn.Module) -> str:
    """Return what stands before the base's tensor names, dot included; "" where it is the base."""
    base = base_of(model)
    return "" if base is model else next(n for n, m in model.named_modules() if m is base) + "."


def prunable_of(model: nn.Module) -> dict[str, Prunable]:
    """Return the linear layers of the blocks, in module order.

    The role is ``attention`` or ``ffn``; the depth is the block's number over all stacks (of
    ALBERT, the group's); the axis is that of the layer's outputs.

    Raises:
        BadInput: there is none; the message says what was looked for and found.
    """
    base, prefix = base_of(model), prefix_of(model)
    taken = {id(p) for p in _embeddings(model)}
    blocks: dict[str, int] = {}
    found: dict[str, Prunable] = {}
    for path, module in base.named_modules():
        block = next(iter(_elements(base, path)), None)
        if not _is_linear(module) or block is None or id(module.weight) in taken:
            continue
        taken.add(id(module.weight))
        role = "attention" if _attention(base, path) else "ffn"
        depth = blocks.setdefault(block, len(blocks))
        found[f"{prefix}{path}.weight"] = Prunable(
            prefix + path, role, depth, axis=1 if _is_conv1d(module) else 0
        )
    if not found:
        raise BadInput(
            "no prunable layer: looked for Linear or Conv1D modules in a ModuleList of "
            f"{type(base).__name__}, found {_inventory(base)}"
        )
    return found


def pooler_of(model: nn.Module) -> dict[str, Prunable]:
    """Return the pooler's linear layer, wherever it is: in the base, or on the head."""
    pooled = [n for n, m in model.named_modules() if "pooler" in n.split(".") and _is_linear(m)]
    if not pooled:
        return {}
    depth = 1 + max(p.depth for p in prunable_of(model).values())
    return {f"{name}.weight": Prunable(name, "pooler", depth) for name in pooled}


def head_of(model: nn.Module) -> frozenset[str]:
    """Return the tensors outside the base: what another task replaces."""
    import torch
    from transformers import AutoModel

    names, prefix = model.state_dict().keys(), prefix_of(model)
    if prefix:
        return frozenset(n for n in names if not n.startswith(prefix))
    with torch.device("meta"):  # the head sits beside the base's own modules (T5 on spans)
        plain = AutoModel.from_config(model.config)
    parts = {n for n, _ in plain.named_children()}
    return frozenset(n for n in names if n.partition(".")[0] not in parts)


def positions_of(model: nn.Module) -> int | None:
    """Return the most tokens that a model reads, None where positions are relative.

    RoBERTa's first position comes after the padding's own.
    """
    from torch import nn

    for name, module in base_of(model).named_modules():
        place = name.rpartition(".")[2]
        if isinstance(module, nn.Embedding) and place in ("position_embeddings", "wpe"):
            padding = module.padding_idx
            return module.num_embeddings - (0 if padding is None else padding + 1)
    config: Any = getattr(model, "config", None)
    relative = getattr(config, "relative_attention", False)
    return None if relative else getattr(config, "max_position_embeddings", None)


def check_depth(masks: Masks, model: nn.Module) -> None:
    """Assert that masks reach a model's last block: else they are of one with fewer layers.

    Raises:
        BadInput: naming the first tensor of the blocks that no mask covers.
    """
    covered, ours = set(masks), prunable_of(model)
    last = max((p.depth for n, p in ours.items() if n in covered), default=-1)
    blocks = max(p.depth for p in ours.values()) + 1
    if last + 1 < blocks:
        first = next(n for n, p in ours.items() if p.depth > last)
        raise BadInput(
            f"the masks cover blocks up to {last + 1} of {blocks} of {type(model).__name__}: "
            f"they are of a model with fewer layers, and lack {first} and all after it"
        )


# -- structured units ----------------------------------------------------------------------


def units_of(model: nn.Module) -> list[Units]:
    """Return the attention heads and the neurons of the feed-forward layers, in module order.

    A unit is all that only it reads and writes: rows of what makes it, columns of what reads
    it. Layers whose sizes do not say where a unit lies (heads that share keys and values,
    experts) are left out.
    """
    base, prefix = base_of(model), prefix_of(model)
    groups: dict[tuple[str, str], dict[str, Prunable]] = {}
    for name, entry in prunable_of(model).items():
        path = entry.layer.removeprefix(prefix)
        place = _attention(base, path) or list(_elements(base, path))[-1]
        groups.setdefault((entry.role, prefix + place), {})[name] = entry
    found = []
    for (role, place), entries in groups.items():
        width = _head_width(model.get_submodule(place)) if role == "attention" else 1
        parts = _parts(model, entries, width)
        if not parts or (role == "ffn" and len(parts) not in (2, 3)):
            continue
        last = parts[-1]
        count = model.get_parameter(last.tensor).shape[last.axis] // width
        depth = next(iter(entries.values())).depth
        found.append(Units(place, "head" if role == "attention" else "neuron", depth, count, parts))
    return found


def _parts(model: nn.Module, entries: Mapping[str, Prunable], width: int) -> tuple[Part, ...]:
    """Return a unit's slices where the last layer reads what all others write, else nothing."""
    *makers, (reader, read) = entries.items()
    inner = model.get_parameter(reader).shape[1 - read.axis]
    if not makers or not width or inner % width:
        return ()
    parts: list[Part] = []
    for name, entry in makers:
        outputs = model.get_parameter(name).shape[entry.axis]
        parent = type(model.get_submodule(entry.layer.rpartition(".")[0])).__name__
        if outputs % inner or (outputs > inner and parent not in FUSED):
            return ()
        parts += [Part(name, entry.axis, width, at) for at in range(0, outputs, inner)]
    return (*parts, Part(reader, 1 - read.axis, width))


def _head_width(attention: nn.Module) -> int:
    """Return the width of a head, 0 where the module does not say."""
    said = (getattr(m, name, None) for m in attention.modules() for name in WIDTHS)
    return next((width for width in said if isinstance(width, int)), 0)


# -- places in the module tree --------------------------------------------------------------


def _ancestors(base: nn.Module, path: str) -> Iterator[tuple[str, nn.Module]]:
    """Yield each module between the base and a path, both excluded, from the outside."""
    steps = path.split(".")
    for end in range(1, len(steps)):
        above = ".".join(steps[:end])
        yield above, base.get_submodule(above)


def _elements(base: nn.Module, path: str) -> Iterator[str]:
    """Yield the members of ``ModuleList``s that a path lies in, from the outside."""
    from torch import nn

    for above, module in _ancestors(base, path):
        if isinstance(module, nn.ModuleList):
            yield f"{above}.{path[len(above) + 1 :].partition('.')[0]}"


def _attention(base: nn.Module, path: str) -> str:
    """Return the outermost attention module that a path lies in, or ""."""
    inside = (n for n, m in _ancestors(base, path) if "Attention" in type(m).__name__)
    return next(inside, "")


def _is_conv1d(module: nn.Module) -> bool:
    """Say whether a module is GPT-2's linear layer, whose weight is (inputs, outputs)."""
    return any(
        kind.__name__ == "Conv1D" and kind.__module__.startswith("transformers.")
        for kind in type(module).__mro__
    )


def _is_linear(module: nn.Module) -> Any:
    from torch import nn

    return isinstance(module, nn.Linear) or _is_conv1d(module)


def _embeddings(model: nn.Module) -> Iterator[Tensor]:
    from torch import nn

    for module in model.modules():
        if isinstance(module, nn.Embedding):
            yield module.weight


def _inventory(base: nn.Module) -> str:
    """Return which modules with weights there are, counted."""
    kinds = Counter(
        type(m).__name__
        for m in base.modules()
        if next(m.parameters(recurse=False), None) is not None
    )
    return ", ".join(f"{count} {kind}" for kind, count in sorted(kinds.items())) or "no weights"
