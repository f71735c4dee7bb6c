"""Listeners: TCP, TLS, WebSocket and secure WebSocket. They carry bytes and know no MQTT."""
