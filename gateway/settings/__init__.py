"""How settings come about: the table of options, what their values may be, and flags over environment over file over preset over default.

The result is ``schemas.settings.Settings``, which knows nothing of where a value came from.
"""
