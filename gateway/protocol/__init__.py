"""MQTT 3.1.1 and 5.0 without I/O: bytes to packets and back. Imports no asyncio, socket, ssl, time, random, logging or os."""
