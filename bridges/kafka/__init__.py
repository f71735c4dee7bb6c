"""Kafka: where rules send to and receive from (streams/backend.py), and a log (streams/log.py)."""
