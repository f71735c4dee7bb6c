"""Who may come in, and what they may do there: sealed secrets, access keys, logins, access rules.

Pure but for the key file and the administrator's file, and synchronous but for calls of the store. Knows no connection and no HTTP.
"""
