"""Damage and harm: whatever is wrong with a ticket's folder, it is refused in words."""

from __future__ import annotations

import random
import shutil

import pytest
import torch
from forge import reseal

from lth_zoo.errors import TicketError
from lth_zoo.folder import CARD, MASKS, META, STATE, _sha
from lth_zoo.formats import dump_masks, dump_tensors
from lth_zoo.masks import Masks
from lth_zoo.ticket import Ticket

DIGESTED = (META, MASKS, STATE)


def test_every_flipped_byte_is_noticed(folder):
    rng = random.Random(0)
    files = {name: (folder / name).read_bytes() for name in DIGESTED}
    for number in range(200):
        # Every file in turn, and so the two headers and the JSON get their share.
        name = DIGESTED[number % 3]
        data = bytearray(files[name])
        place = rng.randrange(len(data) if number % 2 else min(len(data), 600))
        data[place] ^= 1 << rng.randrange(8)
        (folder / name).write_bytes(data)
        with pytest.raises(TicketError, match="ticket") as caught:
            Ticket.from_pretrained(folder)
        assert str(folder) in str(caught.value)
        (folder / name).write_bytes(files[name])
    assert Ticket.from_pretrained(folder)


def test_every_byte_of_the_json_is_digested(folder):
    """Not a sample: each byte of ticket.json, one after another."""
    data = (folder / META).read_bytes()
    for place in range(0, len(data), 1 + len(data) // 1500):
        (folder / META).write_bytes(data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :])
        with pytest.raises(TicketError):
            Ticket.from_pretrained(folder)


@pytest.mark.parametrize("name", DIGESTED)
@pytest.mark.parametrize("left", [0, 1, -1])
def test_a_truncated_file_is_noticed(folder, name, left):
    data = (folder / name).read_bytes()
    (folder / name).write_bytes(data[:left])
    with pytest.raises(TicketError, match=name):
        Ticket.from_pretrained(folder)


@pytest.mark.parametrize("name", DIGESTED)
def test_a_missing_file_is_named(folder, name):
    (folder / name).unlink()
    with pytest.raises(TicketError, match=f"{name} is missing: this is no whole ticket"):
        Ticket.from_pretrained(folder)


def test_nothing_is_read_from_the_card(ticket, folder):
    (folder / CARD).unlink()
    assert Ticket.from_pretrained(folder).id == ticket.id


def test_a_newer_schema_asks_for_an_update(folder):
    reseal(folder, lambda data: data.update(schema=2))
    with pytest.raises(TicketError, match="schema 2, this version reads up to 1: update lth-zoo"):
        Ticket.from_pretrained(folder)


@pytest.mark.parametrize("schema", ["one", None, 0, -1, 1.5, True])
def test_a_schema_that_is_none_is_refused(folder, schema):
    reseal(folder, lambda data: data.update(schema=schema))
    with pytest.raises(TicketError, match="schema"):
        Ticket.from_pretrained(folder)


@pytest.mark.parametrize("name", ["../state.safetensors", "/etc/passwd", "sub/x", "extra.bin"])
def test_other_names_in_the_file_table_are_refused(folder, name):
    (folder / "extra.bin").write_bytes(b"x")

    def swap(data):
        data["files"][name] = data["files"].pop(STATE)

    def add(data):
        data["files"][name] = {"sha256": _sha(b"x"), "bytes": 1}

    for change in (swap, add):
        shutil.copytree(folder, copied := folder.with_name(f"copy-{change.__name__}"))
        reseal(copied, change)
        with pytest.raises(TicketError, match="names files"):
            Ticket.from_pretrained(copied)


@pytest.mark.parametrize("table", [[], None, {MASKS: {}, STATE: {}}, {MASKS: 1, STATE: 2}])
def test_a_file_table_that_is_none_is_refused(folder, table):
    reseal(folder, lambda data: data.update(files=table))
    with pytest.raises(TicketError):
        Ticket.from_pretrained(folder)


@pytest.mark.parametrize("said", [None, 3, [], {}, {"id": None}])
def test_metadata_that_are_none_are_refused(folder, said):
    reseal(folder, lambda data: data.update(ticket=said))
    with pytest.raises(TicketError):
        Ticket.from_pretrained(folder)


@pytest.mark.parametrize("body", [b"[]", b"null", b"{}", b'"x"', b"\xff\xfe", b"[" * 100_000])
def test_a_json_that_is_no_ticket_is_refused(folder, body):
    (folder / META).write_bytes(body)
    with pytest.raises(TicketError):
        Ticket.from_pretrained(folder)


def dropped(ticket, name):
    return Masks({n: m for n, m in ticket.masks.items() if n != name})


def wider(ticket, name):
    return Masks({**ticket.masks, name: torch.ones(3, 5, dtype=torch.bool)})


def compact(ticket, **change):
    tensors = {n: t[ticket.masks[n]] if n in ticket.masks else t for n, t in ticket.state.items()}
    return dump_tensors({**tensors, **change}, {"compact": sorted(ticket.masks)})


HARM = {
    "a mask of another shape": lambda t: {"masks": dump_masks(wider(t, "fc1.weight"))},
    "a mask too few": lambda t: {"masks": dump_masks(dropped(t, "fc1.weight"))},
    "values too few": lambda t: {"state": compact(t, **{"fc1.weight": torch.zeros(2)})},
    "a state that is none": lambda t: {"state": b"no tensors"},
    "a state without our header": lambda t: {"state": dump_tensors({"a": torch.ones(1)}, {})},
    "masks without shapes": lambda t: {"masks": dump_tensors(t.masks.pack(), {})},
    "masks of bits too few": lambda t: {
        "masks": dump_tensors(
            {n: b[:-9] for n, b in t.masks.pack().items()},
            {"shapes": {n: list(m.shape) for n, m in t.masks.items()}},
        )
    },
    "other values": lambda t: {"state": compact(t, **{"fc1.bias": torch.ones(300)})},
}


@pytest.mark.parametrize("harm", HARM)
def test_contents_that_do_not_fit_are_refused_though_every_digest_fits(ticket, folder, harm):
    reseal(folder, **HARM[harm](ticket))
    with pytest.raises(TicketError, match=str(folder)):
        Ticket.from_pretrained(folder)
