"""What implements a port or reaches a backend. Bridges don't import each other."""
