"""JSON or msgpack, in and out. Results are base64 text in JSON and raw bytes in msgpack."""

from __future__ import annotations

import codecs
import io
from typing import Any, Final

import flask
import msgspec

JSON: Final = "application/json"
MSGPACK: Final = "application/msgpack"
BODY_TYPES: Final = frozenset({JSON, MSGPACK})


class MalformedBody(ValueError):
    """The body is not what its content type says."""


def decode_body() -> Any:
    """Decode the request's body by its content type (checked before). Raises MalformedBody.

    Nothing in it can hurt: NaN, lone surrogates, numbers out of range and deep nesting are refused by the decoder,
    and of duplicate keys the last one counts.
    """
    decode = msgspec.msgpack.decode if flask.request.mimetype == MSGPACK else msgspec.json.decode
    try:
        with _body() as body:
            return decode(body)
    except RecursionError:
        raise MalformedBody("it nests too deeply") from None
    except (msgspec.MsgspecError, ValueError, OverflowError, TypeError) as error:
        raise MalformedBody(str(error)[:200]) from None


def _body() -> memoryview:
    """Return the request's body, where it is if the server has it in memory. Raises flask's 413 when it is too long."""
    checked = flask.request.stream
    stream = flask.request.environ["wsgi.input"]
    return stream.getbuffer() if isinstance(stream, io.BytesIO) else memoryview(checked.read())


def wants_msgpack() -> bool:
    """Tell whether the client asked for msgpack; JSON is what it gets otherwise."""
    return MSGPACK in flask.request.headers.get("Accept", "")


def answer(content: Any, status: int = 200) -> flask.Response:
    """Make a response of plain objects and Structs, in the form that the client asked for."""
    if wants_msgpack():
        response = flask.Response(msgspec.msgpack.encode(content), status, content_type=MSGPACK)
    else:
        response = flask.Response(msgspec.json.encode(content), status, content_type=JSON)
    response.headers["Vary"] = "Accept"
    return response


def result_field(result: bytes) -> str | bytes:
    """Return a result as it goes into an answer; "" (or b"") until the task has ended."""
    return result if wants_msgpack() else codecs.encode(result, "base64").decode()
