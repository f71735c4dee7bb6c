"""Places in the log. A position is comparable within its shard only (design: positions)."""

from __future__ import annotations

import msgspec


class At(msgspec.Struct, frozen=True, gc=False, array_like=True, order=True):
    """The place of one record: shard, the offset of its frame, its index in the frame.

    As a position to read from it is inclusive: ``At(0, 40, 2)`` starts at the third record of frame 40.
    ``after`` gives the position behind a record.
    """

    shard: int
    offset: int
    index: int

    def after(self) -> At:
        """The position right behind this record."""
        return At(self.shard, self.offset, self.index + 1)
