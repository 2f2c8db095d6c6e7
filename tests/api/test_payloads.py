from __future__ import annotations

import binascii
import codecs
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from everfaas_core.api.errors import BadPayload
from everfaas_core.api.payloads import call_payload, decode_base64, function_payload
from tests.api.driving import CALL, FUNCTION, encode


@given(st.binary(max_size=3000))
def test_decodes_with_and_without_newlines(data: bytes) -> None:
    lines = codecs.encode(data, "base64").decode()
    assert decode_base64(lines) == data
    assert decode_base64(lines.replace("\n", "")) == data
    assert decode_base64(lines.replace("\n", "\r\n")) == data


@given(st.binary(min_size=1, max_size=300), st.data())
def test_refuses_any_other_character(data: bytes, draw: st.DataObject) -> None:
    text = codecs.encode(data, "base64").decode()
    at = draw.draw(st.integers(0, len(text)))
    other = draw.draw(st.characters(exclude_characters="\r\n=+/", exclude_categories=["Lu", "Ll", "Nd"]))
    with pytest.raises(BadPayload):
        decode_base64(text[:at] + other + text[at:])


@pytest.mark.parametrize(
    "text", ["YQ", "YQ=", "YQ===", "YQ==YQ==", "=YQ=", "a", "Y===", "YQ==YQ", "é", "\ud800", "-_=="]
)
def test_refuses_wrong_padding_and_alphabets(text: str) -> None:
    with pytest.raises(BadPayload):
        decode_base64(text)


def test_decodes_32_mib() -> None:
    data = os.urandom(24 * 1024 * 1024)
    assert decode_base64(codecs.encode(data, "base64").decode()) == data


@pytest.mark.parametrize("sent", ["", "\n\n", b""])
def test_refuses_nothing(sent: str | bytes) -> None:
    for check in (call_payload, function_payload):
        with pytest.raises(BadPayload, match="empty"):
            check(sent)


def test_takes_raw_bytes_and_text() -> None:
    raw = binascii.a2b_base64(CALL)
    assert call_payload(raw) == call_payload(CALL) == raw
    assert function_payload(FUNCTION) == binascii.a2b_base64(FUNCTION)


@pytest.mark.parametrize("thing", ["double", b"code", 42, None, True, (1,), [print], {"f": print}, {1}, 1.5])
def test_a_literal_is_no_function(thing: object) -> None:
    call_payload(encode(thing))
    with pytest.raises(BadPayload, match="not a function"):
        function_payload(encode(thing))


def test_the_classic_invalid_payload_is_refused() -> None:
    with pytest.raises(BadPayload):
        function_payload("invalid_payload")
