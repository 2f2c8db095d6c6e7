"""Objects one after another in one answer: lines of JSON, or msgpack objects without anything between them."""

from __future__ import annotations

import codecs
from collections.abc import Sequence
from typing import Any, Final

import msgspec

from everfaas_core.api.negotiation import MSGPACK
from everfaas_core.model.output import LogPiece, left_out
from everfaas_core.model.records import GroupPage, GroupResult

NDJSON: Final = "application/x-ndjson"

_json: Final = msgspec.json.Encoder()
_msgpack: Final = msgspec.msgpack.Encoder()


class Form(msgspec.Struct, frozen=True):
    """How one client wants its stream."""

    is_msgpack: bool
    with_results: bool = True

    @property
    def content_type(self) -> str:
        """What the answer is called."""
        return MSGPACK if self.is_msgpack else NDJSON

    @property
    def heartbeat(self) -> bytes:
        """Nothing, said aloud: a blank line, or nil."""
        return b"\xc0" if self.is_msgpack else b"\n"

    def one(self, content: dict[str, Any]) -> bytes:
        """Return one object."""
        return _msgpack.encode(content) if self.is_msgpack else _json.encode(content) + b"\n"

    def pieces(self, pieces: Sequence[LogPiece], cursor: str | None) -> bytes:
        """Return an object for each piece of a log, to one who was at `cursor`."""
        objects = []
        for piece in pieces:
            content = {
                "stream": piece.stream,
                "text": piece.text.decode(errors="replace"),
                "attempt": piece.attempt,
                "at_ms": piece.at_ms,
                "cursor": piece.cursor,
            }
            if missing := left_out(cursor, piece):
                content["left_out_bytes"] = missing
            objects.append(content)
            cursor = piece.cursor
        return b"".join(map(_msgpack.encode, objects)) if self.is_msgpack else _json.encode_lines(objects)

    def page(self, page: GroupPage) -> bytes:
        """Return an object for each result."""
        objects = map(self._object, page.ended)
        return b"".join(map(_msgpack.encode, objects)) if self.is_msgpack else _json.encode_lines(objects)

    def _object(self, ended: GroupResult) -> dict[str, Any]:
        content: dict[str, Any] = {"task_id": ended.task_id, "status": ended.status, "cursor": ended.cursor}
        if self.with_results:
            content["result"] = ended.result if self.is_msgpack else codecs.encode(ended.result, "base64").decode()
        if ended.tags:
            content["tags"] = ended.tags
        return content
