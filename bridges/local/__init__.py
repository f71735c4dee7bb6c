"""The embedded log: segments of SQLite files, a frame per commit group, one fsync per group."""
