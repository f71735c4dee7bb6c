"""RocketMQ 4.9 and 5 through their own remoting protocol, spoken from asyncio.

Without I/O: frames.py, messages.py, compression.py, routes.py, signing.py, heartbeats.py, brokersettings.py, outgoing.py, incoming.py, placing.py.
With I/O: connection.py is one connection, client.py all of them, calls.py what is asked of name servers and brokers, and backend.py, target.py,
source.py are the port streams/backend.py; log.py with log_sending.py, log_reader.py, log_topics.py and log_options.py is the port streams/log.py.
"""
