"""Shared subscriptions over many nodes, without I/O: which node has what of them, and which node's member is to have a record.

``own_routes.py`` is what a node tells of its sessions, ``node_routes.py`` the index of what all nodes told, ``choosing.py`` the choice. What a
gateway does with it is gateway/cluster/sharing.py. Plain subscriptions are in no other node's index: each node reads all of ``publish``.
"""
