"""What a job of kind ``plant`` does: write down where an initial state hides its ticket."""

from __future__ import annotations

from ..session import Session


def plant_job(session: Session) -> None:
    """Write the masks of the planted weights, and how many there are."""
    found = session.adapter.planted(session.snapshot("start").state)
    assert found is not None, "a study of planted tickets asks planted models only"
    session.write_masks(found)
    session.write_json({"masks": found.counts, "kept": found.kept, "prunable": found.size})
