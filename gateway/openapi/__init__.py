"""The OpenAPI of the model product at `/` of the HTTP listener: RPC style, signed, for its official SDKs.

signing.py verifies a request and knows no action; table.py lists the actions; endpoint.py is what stands between them and HTTP.
"""
