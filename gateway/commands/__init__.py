"""The commands that talk to a running gateway: over HTTP (key, status) and over MQTT (pub, sub).

They know the gateway by its API and by two files in its data folder, and never open its log or its database.
"""
