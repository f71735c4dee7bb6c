"""The database's versions, one after the other; opening.py runs what is missing. A released version is never edited."""
