"""The two ports (log, store) with their in-memory references, and the pure processors. Only runtime/ runs them."""
