"""What a call is answered with when it fails: HTTP status, code and text as the product has them, by name."""

from __future__ import annotations

from typing import Final

_VALIDATING: Final = "An error occurred while validating the parameters. The parameters may be missing or invalid."

_OF_INSTANCE: Final = (
    "An error occurred while validating the permissions of the instance. "
    "Please verify the account that created the instance and its permissions settings."
)
_OF_RESOURCE: Final = (
    "An error occurred while validating the resource permissions. "
    "Please check the account that created the instance, topic, and GroupId, and check their permission settings."
)

_TABLE: Final[dict[str, tuple[int, str]]] = {
    "ApiNotSupport": (404, "The specified API is not supported."),
    "ParameterCheckFailed": (400, _VALIDATING),
    "ParameterFieldCheckFailed": (400, "Failed to validate the parameters. The parameters may be missing or invalid."),
    "InvalidParameter": (400, "An error occurred while validating the parameter. The parameter may be missing or invalid."),
    "InstancePermissionCheckFailed": (400, _OF_INSTANCE),
    "PermissionCheckFailed": (400, _OF_RESOURCE),
    "CheckAccountInfoFailed": (400, "An error occurred while checking the account information by the STS token."),
    "InstanceNotFound": (400, "Failed to find the instance. The instanceId may be invalid."),
    "GroupIdAlreadyExsited": (400, "The specified GroupId already exists."),
    "Customauth.over.capacity": (400, "Over custom auth capacity."),
    "RegisterCodeError": (500, "Register code error in verification certificate."),
    "MqttInstanceNotFound": (500, "Specified instance is not found"),
    "FindCaBySnError": (500, "Failed to find the CA by the SN. Please check sn is valid."),
    "FindDeviceBySnError": (500, "Failed to find the device certificate by the SN. Please check sn is valid"),
    "SystemOverFlow": (500, "An error occurred while processing your request. Please try again."),
    "InternalError": (500, "An error occurred while processing your request. Try again later."),
    # Of the platform in front of the product
    "IncompleteSignature": (400, "The request signature does not conform to standards."),
    "InvalidAccessKeyId.NotFound": (404, "Specified access key is not found."),
    "SignatureDoesNotMatch": (400, "Specified signature is not matched with our calculation."),
    "InvalidTimeStamp.Format": (400, "Specified time stamp or date value is not well formatted."),
    "InvalidTimeStamp.Expired": (400, "Specified time stamp or date value is expired."),
    "SignatureNonceUsed": (400, "Specified signature nonce was used already."),
    "Forbidden": (403, "This access key is not for managing the instance. Make one with the role manager."),
    "Forbidden.Plaintext": (403, "Requests in clear text from other machines are refused: use TLS, or set allow_plaintext_login."),
    "Throttling": (429, "Too many requests failed to authenticate. Try again in a minute."),
}


class Fault(Exception):
    """``detail`` follows the code (InvalidParameter.ClientId), or the text as what is wrong; it never repeats a secret."""

    def __init__(self, name: str, field: str = "", detail: str = "") -> None:
        status, text = _TABLE[name]
        self.status = status
        self.code = f"{name}.{field}" if name == "InvalidParameter" and field else name
        self.message = f"{text} {field}: {detail}" if detail and field else f"{text} {detail}".rstrip()
        super().__init__(self.code)
