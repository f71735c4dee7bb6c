"""Types of columns that databases know under different names. Tables and migrations share them."""

from __future__ import annotations

from typing import Final

from sqlalchemy import BigInteger, Integer, Text

NUMBER: Final = BigInteger().with_variant(Integer, "sqlite")
"""A key that SQLite takes as the row's own number, which only its type INTEGER can be."""

TEXT: Final = Text().with_variant(Text(collation="C"), "postgresql")
"""Text that compares by code point everywhere, as topics do. It holds no U+0000: PostgreSQL takes none, and MQTT allows none [MQTT-1.5.4-2]."""
