"""HTTP: metrics, health and the API under /api/v1, by FastAPI and uvicorn in the gateway's own event loop.

routes.py says what there is, guard.py who may call it, server.py runs it. Knows the gateway by services.py alone.
"""
