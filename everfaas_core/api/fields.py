"""Marshmallow fields that take what their OpenAPI type says, and nothing that merely looks like it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from marshmallow import fields, validate

from everfaas_core.model.ids import is_id


class Text(fields.String):
    """Printable text of bounded length: no control characters, no lone surrogates."""

    default_error_messages = {"unprintable": "Has characters that can't be printed."}  # noqa: RUF012  # marshmallow's own way

    def __init__(self, *, max_chars: int, min_chars: int = 1, **kwargs: Any) -> None:
        super().__init__(validate=validate.Length(min_chars, max_chars), **kwargs)

    def _deserialize(self, value: Any, attr: str | None, data: Mapping[str, Any] | None, **kwargs: Any) -> str:
        if not isinstance(value, str):
            raise self.make_error("invalid")
        if not value.isprintable():
            raise self.make_error("unprintable")
        return value


class Id(fields.String):
    """An id of a task or function, in lower case from here on."""

    default_error_messages = {"malformed": "Is no id; ids are UUIDs."}  # noqa: RUF012  # marshmallow's own way

    def __init__(self, **kwargs: Any) -> None:
        kwargs.setdefault("metadata", {})
        kwargs["metadata"] = {"format": "uuid"} | kwargs["metadata"]
        super().__init__(**kwargs)

    def _deserialize(self, value: Any, attr: str | None, data: Mapping[str, Any] | None, **kwargs: Any) -> str:
        if not isinstance(value, str):
            raise self.make_error("invalid")
        if not is_id(value):
            raise self.make_error("malformed")
        return value.lower()


class Blob(fields.Field[str | bytes]):
    """A payload: base64 text, or raw bytes in msgpack. What is in it is checked elsewhere (400, not 422)."""

    default_error_messages = {"invalid": "Not a valid string."}  # noqa: RUF012  # marshmallow's own way

    def __init__(self, **kwargs: Any) -> None:
        kwargs.setdefault("metadata", {})
        kwargs["metadata"] = {"type": "string"} | kwargs["metadata"]
        super().__init__(**kwargs)

    def _deserialize(self, value: Any, attr: str | None, data: Mapping[str, Any] | None, **kwargs: Any) -> str | bytes:
        if not isinstance(value, (str, bytes)):
            raise self.make_error("invalid")
        return value


class Whole(fields.Integer):
    """An integer within bounds; no text, no float, no bool."""

    def __init__(self, low: int, high: int, **kwargs: Any) -> None:
        super().__init__(strict=True, validate=validate.Range(low, high), **kwargs)


class Seconds(fields.Float):
    """A duration within bounds (inclusive: an exclusive bound is described wrongly in OpenAPI)."""

    def __init__(self, low: float, high: float, **kwargs: Any) -> None:
        super().__init__(validate=validate.Range(low, high), **kwargs)

    def _deserialize(self, value: Any, attr: str | None, data: Mapping[str, Any] | None, **kwargs: Any) -> float:
        if not isinstance(value, (int, float)):
            raise self.make_error("invalid")
        return super()._deserialize(value, attr, data, **kwargs)


class Flag(fields.Boolean):
    """True or false; neither 1 nor "yes"."""

    def _deserialize(self, value: Any, attr: str | None, data: Mapping[str, Any] | None, **kwargs: Any) -> bool:
        if not isinstance(value, bool):
            raise self.make_error("invalid", input=value)
        return value


class Items(fields.Field[list[Any]]):
    """A list of one to `most` items, which are looked at elsewhere, in one pass; `item` describes one in OpenAPI."""

    default_error_messages = {  # noqa: RUF012  # marshmallow's own way
        "invalid": "Not a valid list.",
        "length": "Has {count} items; 1 to {most} are allowed.",
    }

    def __init__(self, most: int, item: Mapping[str, str], **kwargs: Any) -> None:
        self._most = most
        metadata = {"type": "array", "items": dict(item), "minItems": 1, "maxItems": most}
        super().__init__(metadata=metadata, **kwargs)

    def _deserialize(self, value: Any, attr: str | None, data: Mapping[str, Any] | None, **kwargs: Any) -> list[Any]:
        if not isinstance(value, list):
            raise self.make_error("invalid")
        if not 1 <= len(value) <= self._most:
            raise self.make_error("length", count=len(value), most=self._most)
        return value
