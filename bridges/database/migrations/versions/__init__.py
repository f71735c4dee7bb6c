"""One file a version, named v<number>_<what>.py."""
