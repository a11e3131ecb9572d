"""What a job of kind ``overlap`` does: count what two masks share, and the signs they agree on."""

from __future__ import annotations

from typing import Any

from ..session import Session


def overlap_job(session: Session) -> None:
    """Write, tensor by tensor of those both masks have, what each keeps, both keep, and all.

    With the states ``state-a`` and ``state-b`` also the signs of the weights that both keep: how
    many are positive in each, and how many are the same.
    """
    a, b = session.masks("masks-a"), session.masks("masks-b")
    assert a is not None
    assert b is not None
    names = [n for n in a if n in b and a[n].shape == b[n].shape]
    kept = {
        n: {
            "a": int(a[n].sum()),
            "b": int(b[n].sum()),
            "both": int((a[n] & b[n]).sum()),
            "size": a[n].numel(),
        }
        for n in names
    }
    found: dict[str, Any] = {"layers": kept}
    if "state-a" in session.job.inputs:
        ours, theirs = (session.snapshot(f"state-{side}").state for side in "ab")
        found["signs"] = {
            n: _signs(ours[n][both], theirs[n][both])
            for n in names
            if n in ours and n in theirs and (both := a[n] & b[n]).any()
        }
    session.write_json(found)


def _signs(x: Any, y: Any) -> dict[str, int]:
    return {
        "a": int((x > 0).sum()),
        "b": int((y > 0).sum()),
        "same": int((x.sign() == y.sign()).sum()),
        "size": len(x),
    }
