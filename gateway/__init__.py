"""The MQTT front: protocol, sessions, transports, access, HTTP. Only app.py knows every part."""
