"""One program a client library. Each takes a job as JSON in its first argument and obeys the contract in ../jobs.py."""
