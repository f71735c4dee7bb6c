"""RocketMQ: its remoting protocol, and where rules send to and receive from (streams/backend.py)."""
