"""What a gateway does as one of many nodes over one log and one store; a gateway alone has none of it."""
