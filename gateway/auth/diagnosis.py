"""What is wrong with a Signature login: for whoever has the key and sees a device refused. Pure; never told to the device itself."""

from __future__ import annotations

import base64
import binascii
import hmac
from typing import Final

from gateway.auth.login import sign, signature_user_name

RIGHT: Final = "the login is right"
DIGEST_BYTES: Final = 20
"""Of HMAC-SHA1."""


def diagnose(client_id: str, key_id: str, secret: bytes, instance_id: str, user_name: str, password: bytes) -> str:
    """The first thing that is wrong with what a device sent, in one line."""
    expected = signature_user_name(key_id, instance_id)
    parts = user_name.split("|")
    if len(parts) != 3:
        return f"the user name has {len(parts)} fields separated by |, not 3: it must be {expected}"
    mode, key, instance = parts
    if mode != "Signature":
        return f"the mode word is {mode!r}, not 'Signature' in this very spelling" if mode.lower() == "signature" else f"the mode word is {mode!r}"
    if key != key_id:
        return f"the access key is {key!r}, and the one to check with is {key_id!r}"
    if instance != instance_id:
        return f"the instance id is {instance!r}, and the gateway's is {instance_id!r}"
    return _diagnose_password(client_id, secret, password)


def _diagnose_password(client_id: str, secret: bytes, password: bytes) -> str:
    if hmac.compare_digest(sign(secret, client_id), password):
        return RIGHT
    if hmac.compare_digest(sign(secret, client_id), password.strip()):
        return "the password has white space around it"
    if hmac.compare_digest(secret, password):
        return "the password is the secret itself: it must be base64(HMAC-SHA1(secret, client id))"
    if hmac.compare_digest(hmac.digest(secret, client_id.encode(), "sha1").hex().encode(), password.lower()):
        return "the password is the signature in hexadecimal: it must be in base64"
    if hmac.compare_digest(sign(client_id.encode(), secret.decode(errors="replace")), password):
        return "key and text of the signature are swapped: the secret is the key, the client id is what is signed"
    try:
        length = len(base64.b64decode(password, validate=True))
    except (binascii.Error, ValueError):
        return "the password is not base64"
    if length != DIGEST_BYTES:
        return f"the password is base64 of {length} bytes, not of the {DIGEST_BYTES} of HMAC-SHA1"
    for others, words in ((client_id.strip(), "without the white space around it"), (client_id.partition("@@@")[0], "of the group id alone")):
        if others != client_id and hmac.compare_digest(sign(secret, others), password):
            return f"the signature is of another client id: {words}"
    return "the signature is of another client id, or made with another secret"
