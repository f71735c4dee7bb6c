"""The trace on disk: segments of SQLite in a folder of its own, written by a thread of its own, without a sync."""
