"""The rules of a running gateway: kept in the store, run by streams/runtime, managed over HTTP and by commands.

engine.py (what runs), management.py (create, change, delete, with every check), info.py (what is shown of them), dry_run.py (what
would be sent), undelivered.py (commands that nobody got).
"""
