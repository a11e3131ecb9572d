"""lth-zoo push: a ticket to the Hugging Face hub."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import tyro

from .options import Output, emit, parse


@dataclass(frozen=True, kw_only=True)
class Push(Output):
    """Upload a ticket folder to the Hugging Face hub; log in first with `hf auth login`."""

    ticket: Annotated[str, tyro.conf.Positional]
    """A ticket's folder."""
    repo: Annotated[str, tyro.conf.Positional]
    """Repository on the hub, as user/name."""
    private: bool = False
    """Whether a new repository is private."""


def run(args: Sequence[str]) -> int:
    """Run the command."""
    options = parse(Push, args, "push")
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    from ..errors import LthZooError
    from ..ticket import Ticket

    ticket = Ticket.from_pretrained(options.ticket)
    try:
        address = ticket.push_to_hub(options.repo, private=options.private)
    except (HfHubHTTPError, HFValidationError, OSError) as error:
        raise LthZooError(f"cannot push to {options.repo!r}: {error}") from error
    emit({"address": address, "id": ticket.id}, options.json, address)
    return 0
