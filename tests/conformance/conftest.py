"""The gateway without sockets, as in the unit tests of the gateway."""

from __future__ import annotations

from tests.unit.gateway.conftest import bed, make_bed

__all__ = ["bed", "make_bed"]
