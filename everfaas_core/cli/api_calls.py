"""One kept-alive connection to an API, in msgpack: what commands that measure or watch a running system call it by."""

from __future__ import annotations

import http.client
import os
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Final
from urllib.parse import urlsplit

import msgspec

from everfaas_core.model.errors import ConfigError, EverfaasError

DEFAULT_URL: Final = "http://127.0.0.1:8000"
URL_VARIABLE: Final = "EVERFAAS_URL"
TIMEOUT_S: Final = 90.0
"""For one exchange; the longest wait that a server grants is a minute."""

JOINED_BYTES_MAX: Final = 64 * 1024

MSGPACK: Final = "application/msgpack"
_HEADERS: Final[Mapping[str, str]] = {"Content-Type": MSGPACK, "Accept": MSGPACK}


class ApiFailed(EverfaasError):
    """The API said no, or nothing at all. A command exits with status 1."""

    code = "api_failed"


class JoinedSends(http.client.HTTPConnection):
    """Sends a request's header and its body, if that is small, in one piece: the server is woken once."""

    _pieces: list[bytes] | None = None

    def request(self, method: str, url: str, *args: Any, **kwargs: Any) -> None:
        """Send a request. Raises OSError and HTTPException."""
        self._pieces = []
        try:
            super().request(method, url, *args, **kwargs)
        finally:
            pieces, self._pieces = self._pieces, None
        if sum(map(len, pieces)) <= JOINED_BYTES_MAX:
            pieces = [b"".join(pieces)]
        for piece in pieces:
            self.send(piece)

    def send(self, data: Any) -> None:
        """Send now, or with the rest of the request."""
        if self._pieces is None:
            super().send(data)
        else:
            self._pieces.append(data)


class JoinedTlsSends(JoinedSends, http.client.HTTPSConnection):
    """The same over TLS."""


class ApiCalls:
    """Speaks to the API at `url`. A context manager; for one thread. Connects with the first call."""

    def __init__(self, url: str | None = None) -> None:
        """Take `url`, or EVERFAAS_URL, or the default. Raises ConfigError for what is no address."""
        self.url = (url or os.environ.get(URL_VARIABLE) or DEFAULT_URL).rstrip("/")
        try:
            parts = urlsplit(self.url)
            host, port = parts.hostname, parts.port
        except ValueError:
            host = port = None
        if not host or parts.scheme not in ("http", "https"):
            raise ConfigError(f"'{self.url}' is not the API's address", hint=f"for example {DEFAULT_URL}")
        kind = JoinedTlsSends if parts.scheme == "https" else JoinedSends
        self._connection = kind(host, port, timeout=TIMEOUT_S)
        self._prefix = parts.path

    def __enter__(self) -> ApiCalls:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._connection.close()

    def get(self, path: str) -> Any:
        """Return the body of an answer. Raises ApiFailed."""
        return self._call("GET", path, None)

    def post(self, path: str, body: Mapping[str, Any]) -> Any:
        """Return the body of the answer to a body. Raises ApiFailed."""
        return self._call("POST", path, msgspec.msgpack.encode(body))

    def _call(self, method: str, path: str, body: bytes | None) -> Any:
        try:
            self._connection.request(method, self._prefix + path, body, _HEADERS)
            answer = self._connection.getresponse()
            content = answer.read()
        except (OSError, http.client.HTTPException) as error:
            self._connection.close()
            raise ApiFailed(
                f"no API answers at {self.url}: {str(error) or type(error).__name__}",
                hint="start one with `everfaas up`, or name it: --url URL or EVERFAAS_URL",
            ) from error
        if answer.status >= http.client.BAD_REQUEST:
            raise _refusal(self.url, answer.status, content)
        return self._decoded(answer, content)

    def _decoded(self, answer: http.client.HTTPResponse, content: bytes) -> Any:
        try:
            if answer.headers.get_content_type() == MSGPACK:
                return msgspec.msgpack.decode(content)
            return msgspec.json.decode(content)
        except msgspec.DecodeError:
            raise ApiFailed(
                f"what answers at {self.url} is not this API", hint="name the API's address: --url URL or EVERFAAS_URL"
            ) from None


class _Error(msgspec.Struct):
    message: str
    hint: str | None = None


class _Refusal(msgspec.Struct):
    error: _Error


def _refusal(url: str, status: int, content: bytes) -> ApiFailed:
    for decode in (msgspec.json.decode, msgspec.msgpack.decode):
        try:
            said = decode(content, type=_Refusal).error
        except msgspec.MsgspecError:
            continue
        return ApiFailed(f"the API refused ({status}): {said.message}", hint=said.hint)
    return ApiFailed(
        f"what answers at {url} is not this API: status {status}",
        hint="name the API's address: --url URL or EVERFAAS_URL",
    )
