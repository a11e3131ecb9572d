"""The ticket: masks, the state to train from, and where both came from.

On disk a ticket is a folder. ``ticket.json`` is written in one canonical form and carries its
own digest and those of the tensor files, so every flipped byte is noticed. Loading reads JSON
and safetensors and executes nothing.
"""

from __future__ import annotations

import copy
import hashlib
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from .card import card
from .errors import BadInput, LthZooError, TicketError
from .folder import CARD, MASKS, META, STATE, check_place, fetched, opened, sealed
from .foreign import read_graph, read_masks, read_torch_prune
from .formats import dump_masks, state_fingerprint
from .graph import Graph
from .jobs import canonical
from .masks import Masks
from .placing import Places, check_places, head_fits, places, renamed, zero_
from .pretrained import Pretrained, digest
from .protocols import Signature, adapter_of
from .seeds import seeded
from .ticket_files import packed, put, unpacked
from .ticket_graph import bare, facts, restricted


@dataclass(frozen=True)
class Ticket:
    """A sparse subnetwork and the state it trains from.

    ``masks`` says what is kept; ``state`` is the model's state dict at the rewind point, its
    pruned entries 0; ``meta`` is plain data: model, signature, recipe, level, seed, metrics,
    curve, cost, library versions. Of a start that is a public checkpoint the state holds only
    what the checkpoint lacks (the head), and ``meta["pretrained"]`` names the rest
    (:class:`~lth_zoo.pretrained.Pretrained`). Names are the base model's, without ``bert.``.
    Where edges are masked too (entries ``graph/...``), ``graph`` is the graph they are of,
    without its features; models know nothing of it.
    """

    masks: Masks
    state: Mapping[str, Tensor]
    meta: dict[str, Any] = field(default_factory=dict)
    graph: Graph | None = None

    def __post_init__(self) -> None:
        graph = bare(self.graph, self.masks)
        object.__setattr__(self, "graph", graph)
        if graph is not None:
            object.__setattr__(self, "meta", {**self.meta, "graph": facts(graph)})
        # Cloned: a ticket that aliases a live model would train along with it.
        state = {name: tensor.detach().cpu().clone() for name, tensor in self.state.items()}
        pretrained = self.pretrained
        for name, mask in self.masks.weights.items():
            if name not in state and pretrained and name in pretrained.digests:
                continue
            if name not in state:
                raise TicketError(f"mask {name!r} has no tensor in the state")
            if state[name].shape != mask.shape:
                raise TicketError(
                    f"{name!r}: the mask has shape {tuple(mask.shape)}, the state "
                    f"{tuple(state[name].shape)}"
                )
            state[name] = torch.where(mask, state[name], torch.zeros((), dtype=state[name].dtype))
        object.__setattr__(self, "state", state)

    def __repr__(self) -> str:
        model = self.meta.get("model", "a model")
        edges = f", graph sparsity {self.graph_sparsity:.4f}" if self.graph else ""
        return f"Ticket({self.id[:12]}, {model}, sparsity {self.masks.sparsity:.4f}{edges})"

    @property
    def id(self) -> str:
        """sha256 over masks, starting state and recipe key: the same search has the same id.

        The fingerprint and the digests of a checkpoint stand for what the state leaves to it.
        """
        parts: list[Any] = [
            self.masks.digest(),
            state_fingerprint(dict(self.state)),
            self.meta.get("recipe_key"),
        ]
        if pretrained := self.pretrained:
            parts += [pretrained.fingerprint, dict(pretrained.digests)]
        return hashlib.sha256(canonical(parts).encode()).hexdigest()

    @property
    def sparsity(self) -> float:
        """Removed share of the prunable weights."""
        return self.masks.sparsity

    @property
    def graph_sparsity(self) -> float:
        """Removed share of the graph's edges; 0 where the ticket has none."""
        kept, total = self._edges()
        return 1.0 - kept / total if total else 0.0

    def _edges(self) -> tuple[int, int]:
        return next(iter(self.masks.data.counts.values()), (0, 0))

    @property
    def pretrained(self) -> Pretrained | None:
        """The public checkpoint that the ticket starts from; None where its state is whole."""
        return Pretrained.read(self.meta)

    # -- use ------------------------------------------------------------------------------

    def materialize(self, trust_code: bool = False) -> nn.Module:
        """Return an ordinary module: built, rewound and masked, with no hooks on it.

        A Hugging Face model's ``save_pretrained`` writes a folder that ``from_pretrained``
        reloads with the same logits. A model of ``module:function`` is somebody's code: it is
        only imported with ``trust_code``.

        Raises:
            BadInput: the ticket names no model, or its code is not trusted.
            TicketError: a tensor does not fit: the checkpoint is not what it was.
        """
        name = self.meta.get("model")
        if not name or name.startswith("object/"):
            raise BadInput("the ticket names no model that can be built; use apply_to(model)")
        if ":" in name and not trust_code:
            raise BadInput(f"model {name!r} imports code; pass trust_code=True if you trust it")
        name = self.pretrained.pinned(name) if self.pretrained else name
        with seeded(0, "init"):
            model = adapter_of(name).build(name, self._signature())
        where = self._places(model)
        if not head_fits(where, self._head(where), model):
            raise TicketError(f"the head of {type(model).__name__} is not the ticket's")
        self.apply_to(model)
        return model

    def apply_to(self, model: nn.Module, *, start: Literal["ticket", "any"] = "ticket") -> Masks:
        """Rewind a model to the ticket's start and prune it; returns the masks for it.

        The masks have the model's own names: ``with ticket.apply_to(model).enforced(model)``.
        A Hugging Face model may be the ticket's own, the same base under another task's head,
        or the base alone. The ticket's head is loaded if the model's has the same names and
        shapes, else the model's own stays. What the ticket left to a public checkpoint must
        be in the model already, and is checked value by value.

        ``start="any"`` changes no weight but the pruned: for another start, such as a
        re-initialised control.

        Raises:
            TicketError: a tensor is missing, left over, of another shape, or (of a checkpoint)
                of other values. The model is then as it was.
        """
        if start not in ("ticket", "any"):
            raise BadInput(f"start {start!r} is not ticket (its own) or any (the model's)")
        where = self._places(model)
        masks = renamed(self.masks.weights, where)
        if start == "ticket":
            self._check_checkpoint(where, model)
            head = self._head(where)
            state = {n: t for n, t in self.state.items() if n in where.found and n not in head}
            if head_fits(where, head, model):
                state |= head
            model.load_state_dict({where.found[n]: t for n, t in state.items()}, strict=False)
        zero_(model, masks)
        return masks

    def masks_for(self, model: nn.Module) -> Masks:
        """Return the masks under a model's own names, to be enforced; changes nothing.

        Raises:
            TicketError: the model is another one; the message names the tensors.
        """
        return renamed(self.masks.weights, self._places(model))

    def edge_index(self) -> Tensor:
        """Return the kept edges, (2, kept columns) int64, in the ticket's numbers of the nodes.

        Raises:
            BadInput: the ticket has no edges: it prunes weights alone.
        """
        return self._graph().restricted(self.masks.data).edge_index.clone()

    def restrict(self, data: Any) -> Any:
        """Return a copy of a ``Data`` or ``(x, edge_index)`` without the pruned edges.

        They are matched by their nodes: :func:`~lth_zoo.ticket_graph.restricted`.

        Raises:
            BadInput: the ticket has no edges, or ``data`` is another graph.
        """
        return restricted(data, self._graph(), self.masks)

    def _graph(self) -> Graph:
        if self.graph is None:
            raise BadInput("the ticket prunes weights alone: it says nothing of any graph's edges")
        return self.graph

    def _signature(self) -> Signature:
        said = self.meta["signature"]
        return Signature(tuple(said["input"]), said["output"], said.get("answer", "classes"))

    def _places(self, model: nn.Module) -> Places:
        pretrained = self.pretrained
        names = [*self.state, *(pretrained.digests if pretrained else ())]
        where = places(names, model, lambda name: self._in_family(name, model))
        masks = self.masks.weights
        shapes = {n: tuple(t.shape) for n, t in {**masks, **self.state}.items()}
        check_places(where, shapes, masks, model)
        return where

    def _in_family(self, name: str, model: nn.Module) -> str:
        """Return the name that the family of models gives a tensor in this one."""
        try:
            family = adapter_of(self.meta.get("model") or "")
        except BadInput:  # an object, or an imported ticket: names are what they are
            return name
        one = Masks({name: torch.ones(1, dtype=torch.bool)})
        return next(iter(family.fit(one, model)))

    def _head(self, where: Places) -> dict[str, Tensor]:
        return {n: t for n, t in self.state.items() if n in where.head}

    def _check_checkpoint(self, where: Places, model: nn.Module) -> None:
        """Assert that a model holds what the ticket left to a checkpoint."""
        pretrained = self.pretrained
        if pretrained is None:
            return
        theirs = model.state_dict()
        odd = [
            name
            for name, known in pretrained.digests.items()
            if name in where.found and name not in where.head
            if digest(name, theirs[where.found[name]], self.masks) != known
        ]
        if odd:
            raise TicketError(pretrained.refusal(odd, theirs[where.found[odd[0]]].dtype))

    # -- files ----------------------------------------------------------------------------

    def save_pretrained(self, folder: Path | str) -> Path:
        """Write the ticket folder; an earlier ticket there is replaced whole.

        Raises:
            BadInput: the folder holds something else.
            StoreError: it cannot be written; nothing half written stays.
        """
        folder = Path(folder)
        check_place(folder)
        files = {MASKS: dump_masks(self.masks), STATE: packed(self.masks, self.state, self.graph)}
        files[META] = sealed(self.meta | {"id": self.id, "counts": self.counts()}, files)
        files[CARD] = card(self).encode()
        put(folder, files)
        return folder

    def counts(self) -> dict[str, int]:
        """Return kept and prunable weights, and all parameters and buffers, as denominators.

        With a graph also its kept edges and all of them.
        """
        pretrained = self.pretrained
        borrowed = pretrained.values if pretrained else 0
        kept, edges = self._edges()
        return {
            "kept": self.masks.kept,
            "prunable": self.masks.size,
            "all": sum(t.numel() for t in self.state.values()) + borrowed,
            **({"edges_kept": kept, "edges": edges} if self.graph else {}),
        }

    @classmethod
    def from_pretrained(cls, source: Path | str, revision: str | None = None) -> Ticket:
        """Read a ticket folder, or fetch one from the Hugging Face hub by id.

        Raises:
            TicketError: missing, damaged, or of a newer schema.
        """
        folder = Path(source)
        if not folder.is_dir():
            folder = fetched(str(source), revision)
        meta, files = opened(folder)
        try:
            masks, state, graph = unpacked(files, meta)
            said = {k: meta[k] for k in meta if k not in ("id", "counts")}
            ticket = cls(masks, state, said, graph)
        except (LthZooError, KeyError, TypeError, ValueError, RuntimeError) as error:
            raise TicketError(f"{folder} holds tensors that do not fit: {error}") from error
        if ticket.id != meta.get("id"):
            raise TicketError(
                f"{folder} holds ticket {ticket.id[:12]}, its {META} says {meta.get('id')!s:.12}"
            )
        return ticket

    def push_to_hub(self, repo_id: str, *, private: bool = False, token: str | None = None) -> str:
        """Upload the ticket folder to the Hugging Face hub; returns its address."""
        from huggingface_hub import HfApi

        api = HfApi(token=token)
        api.create_repo(repo_id, private=private, exist_ok=True)
        with tempfile.TemporaryDirectory() as folder:
            self.save_pretrained(Path(folder) / "ticket")
            info = api.upload_folder(
                repo_id=repo_id,
                folder_path=str(Path(folder) / "ticket"),
                commit_message=f"ticket {self.id[:12]}",
            )
        return str(info)

    # -- masks of others --------------------------------------------------------------------

    @classmethod
    def from_masks(
        cls,
        masks: Mapping[str, Tensor],
        state: Mapping[str, Tensor],
        *,
        polarity: Literal["keep", "prune"],
        meta: Mapping[str, Any] | None = None,
    ) -> Ticket:
        """Take in a plain mask dictionary; ``polarity`` says what its ones mean.

        A mask of edges needs their nodes in the state (:func:`~lth_zoo.foreign.read_graph`).

        Raises:
            BadInput: the polarity is not said, a mask holds anything but zeros and ones, or one
                of edges is not of known nodes.
        """
        origin = {"origin": "imported", **(meta or {})}
        kept, state, graph = read_graph(read_masks(masks, polarity), state)
        return cls(Masks(kept), state, origin, graph)

    @classmethod
    def from_torch_prune(cls, source: nn.Module | Mapping[str, Tensor]) -> Ticket:
        """Take in a model pruned by ``torch.nn.utils.prune``, or its state dict.

        Raises:
            BadInput: there is no ``*_orig`` / ``*_mask`` pair in it.
        """
        masks, state = read_torch_prune(source)
        meta = {"origin": "torch.nn.utils.prune"}
        return cls.from_masks(masks, state, polarity="keep", meta=meta)

    def with_meta(self, **more: Any) -> Ticket:
        """Return the ticket with more provenance."""
        return replace(self, meta={**copy.deepcopy(self.meta), **more})
