"""A fleet without sockets, tasks or clocks: many nodes that do nothing but route and own sessions, by a seed, over streams/routing.

``shared.py`` is what they share, ``router.py`` and ``gateway.py`` are the two halves of a node, ``sessions.py`` what it has, ``takeover.py`` what
becomes of the dead, ``clients.py`` the devices, ``simulation.py`` what happens to all of them and the verdict; ``plans.py`` are fleets with their
troubles, ``mutations.py`` the mistakes that have to be found, ``cost.py`` counts.
"""
