"""The embedded log: segments of frames in SQLite files. ``EmbeddedLog`` in log.py is the way in."""
