"""Words that every part shares: records, positions, topics, reason codes, errors, limits, settings.

Knows nothing of I/O, clocks or the parts that use it.
"""
