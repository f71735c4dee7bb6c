"""Routing for many nodes, without I/O: routers read the shards of ``publish``, nodes get what is for their sessions.

``node_routes.py`` is the router's index, ``router.py`` routes a shard, ``messages.py`` is what it tells nodes, ``watermarks.py`` what a node
makes of that. ``own_routes.py`` is what a node tells routers. ``choosing.py`` and ``handing.py`` are shared subscriptions, ``assignment.py`` who
routes which shard. The resume rule of sessions is ``streams/resuming.py``.
"""
