"""Payloads: strict base64 and a plausible pickle. Nothing here loads one."""

from __future__ import annotations

import binascii
from typing import Final

from everfaas_core.api.errors import BadPayload
from everfaas_core.api.pickle_scan import LITERAL, ScanError, scan

_ENCODE: Final = 'send codecs.encode(dill.dumps(obj), "base64").decode()'


def call_payload(sent: str | bytes) -> bytes:
    """Return the bytes of a call's payload: raw, or from base64 text. Raises BadPayload."""
    payload = _bytes(sent)
    _scan(payload)
    return payload


def function_payload(sent: str | bytes) -> bytes:
    """Return the bytes of a function's payload. Raises BadPayload, also when it is plainly not a callable."""
    payload = _bytes(sent)
    if _scan(payload) == LITERAL:
        raise BadPayload(
            "the payload holds data, not a function",
            hint="serialize the function itself, not its name or its result",
        )
    return payload


def _bytes(sent: str | bytes) -> bytes:
    payload = sent if isinstance(sent, bytes) else decode_base64(sent)
    if not payload:
        raise BadPayload("the payload is empty", hint=_ENCODE)
    return payload


def decode_base64(text: str) -> bytes:
    """Decode strict base64, in lines or in one. Raises BadPayload for anything else in it."""
    try:
        return binascii.a2b_base64(text.replace("\n", "").replace("\r", ""), strict_mode=True)
    except ValueError as error:  # binascii.Error is one; so is what text outside of ASCII raises
        raise BadPayload(f"the payload is not base64: {error}", hint=_ENCODE) from None


def _scan(payload: bytes) -> int:
    try:
        return scan(payload)
    except ScanError as error:
        raise BadPayload(f"the payload is not a complete pickle: {error}", hint=_ENCODE) from None
