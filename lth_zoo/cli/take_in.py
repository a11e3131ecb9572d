"""lth-zoo import: a ticket out of masks that were made elsewhere."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from ..errors import BadInput
from .options import Output, emit, parse

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Import(Output):
    """Make a ticket folder of a checkpoint pruned by torch prune, or of a plain mask file.

    Files are .safetensors, or .pt / .bin / .pth holding tensors only (no code is run).
    """

    checkpoint: Annotated[Path, tyro.conf.Positional]
    """State dict: with *_orig and *_mask pairs, or the plain weights that --masks go with."""
    masks: Path | None = None
    """File of masks, tensor name -> zeros and ones."""
    polarity: Literal["keep", "prune"] | None = None
    """What a one means in --masks: the weight is kept, or pruned."""
    out: Path = Path("ticket")
    """Folder to write."""


def run(args: Sequence[str]) -> int:
    """Run the command."""
    options = parse(Import, args, "import")
    from ..ticket import Ticket

    state = tensors_of(options.checkpoint)
    if options.masks is None:
        ticket = Ticket.from_torch_prune(state)
    elif options.polarity is None:
        raise BadInput("say what a one means in the masks: --polarity keep or --polarity prune")
    else:
        ticket = Ticket.from_masks(tensors_of(options.masks), state, polarity=options.polarity)
    ticket.save_pretrained(options.out)
    answer = {"ticket": str(options.out), "id": ticket.id, **ticket.counts()}
    emit(answer, options.json, f"wrote {options.out}: {ticket.masks!r}")
    return 0


def tensors_of(path: Path) -> dict[str, Tensor]:
    """Return the tensors of a file, without running any code in it.

    Raises:
        BadInput: it is missing, or holds anything but named tensors.
    """
    import pickle

    import safetensors.torch
    import torch
    from safetensors import SafetensorError

    if not path.is_file():
        raise BadInput(f"file {str(path)!r} does not exist")
    try:
        if path.suffix == ".safetensors":
            return dict(safetensors.torch.load_file(path))
        found = torch.load(path, map_location="cpu", weights_only=True)
    except (SafetensorError, pickle.UnpicklingError, RuntimeError, EOFError, OSError) as error:
        reason = str(error).partition("\n")[0]
        raise BadInput(f"{path} is no file of tensors: {reason}") from error
    if not isinstance(found, dict) or not all(isinstance(t, torch.Tensor) for t in found.values()):
        raise BadInput(f"{path} holds no plain mapping of names to tensors")
    return found
