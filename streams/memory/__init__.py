"""In-memory references of the two ports: what the contract suites define, and the adversary that tests ask for."""
