"""What crosses between records of the log and messages of backends. Pure: no clock, no waiting; who runs it is streams/runtime.

outflow.py (record to message), inflow.py (message to record), status.py (presence event to message), conditions.py (filter,
projection, JSON Schema), properties.py (names, limits, control characters), mqtt5.py (the forwarded MQTT 5 properties).
"""
