"""Runs the processors over the log: the one part of streams that waits.

router.py (``publish`` to sessions), presence.py (``presence`` to status), and for rules: feed.py (one reader for all that keep up),
outflow.py (records to a backend; status events too), inflow.py (a backend's messages to records), sending.py (batches, retries and dead
letters), progress.py (what a rule says of itself).
"""

from streams.runtime.presence import PresenceFold, PresenceSink
from streams.runtime.router import Downlink, Router

__all__ = ["Downlink", "PresenceFold", "PresenceSink", "Router"]
