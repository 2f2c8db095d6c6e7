"""A subscription to one channel, as a descriptor that a loop can wait on."""

from __future__ import annotations

import contextlib
import selectors
from collections.abc import Callable, Sequence
from typing import Any, Final

import msgspec
from redis import exceptions

from everfaas_core.model.errors import EverfaasError, StoreUnavailable
from everfaas_core.model.ids import TaskId
from everfaas_core.model.records import ResultRecord
from everfaas_core.model.states import Status
from everfaas_core.ports import Notice

_MESSAGE: Final = b"message"
_GROUPS: Final = b"+"  # begins a message that names groups
_PRINTED: Final = b">"  # begins a message that names tasks which have printed
_LONE: Final = b"="  # begins a message that tells all of one task; all others on that channel are ids

_names: Final = msgspec.msgpack.Decoder(tuple[str, ...])


class RedisWatch:
    """Implements `ports.Watch`. Used by one thread.

    `fileno()` is the selector's, which stays the same while connections come and go.
    """

    def __init__(self, connect: Callable[[], Any], explain: Callable[[Exception], EverfaasError], channel: str) -> None:
        self._connect = connect
        self._explain = explain
        self._channel = channel
        self._is_bell = channel.endswith("work")
        self._selector: Any = selectors.DefaultSelector()  # typed as what need not have a fileno
        self._connection: Any | None = None
        try:
            self._subscribe()
        except BaseException:
            self.close()
            raise

    def fileno(self) -> int:
        """Return the descriptor to wait on; it never changes."""
        descriptor: int = self._selector.fileno()
        return descriptor

    def read(self) -> Sequence[Notice]:
        """Return what has come in. After a lost connection, subscribe anew and say that notices may be missing."""
        if self._connection is None:
            self._subscribe()
            return [Notice(lost=True)]
        notices: list[Notice] = []
        try:
            while self._connection.can_read(timeout=0):  # also what the parser has read ahead
                reply = self._connection.read_response()
                if reply[0] == _MESSAGE:
                    notices.append(self._notice(reply[2]))
        except (exceptions.RedisError, OSError):
            self._disconnect()
            try:
                self._subscribe()
            except StoreUnavailable:
                if not notices:
                    raise
            else:
                notices.append(Notice(lost=True))
        return notices

    def close(self) -> None:
        """Unsubscribe and close. Idempotent."""
        self._disconnect()
        self._selector.close()

    def _notice(self, message: bytes) -> Notice:
        if self._is_bell:
            return Notice(bell=True)
        if message.startswith(_GROUPS):
            return Notice(groups=_names.decode(message[len(_GROUPS) :]))
        if message.startswith(_PRINTED):
            return Notice(printed=tuple(TaskId(task) for task in message[len(_PRINTED) :].decode().split(" ")))
        if message.startswith(_LONE):
            task, status, result = message[len(_LONE) :].split(b" ", 2)
            told = ResultRecord(task_id=TaskId(task.decode()), status=Status(status.decode()), result=result)
            return Notice(ended=(told.task_id,), told=told)
        return Notice(ended=tuple(TaskId(task) for task in message.decode().split(" ")))

    def _subscribe(self) -> None:
        connection = self._connect()
        try:
            connection.send_command("SUBSCRIBE", self._channel, check_health=False)
            connection.read_response()  # from here on nothing is missed
            self._selector.register(connection._sock, selectors.EVENT_READ)
        except (exceptions.RedisError, OSError) as error:
            connection.disconnect()
            raise self._explain(error) from error
        connection.health_check_interval = 0  # a PING's answer would come among the messages
        self._connection = connection

    def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is None:
            return
        with contextlib.suppress(KeyError, ValueError, OSError):
            if connection._sock is not None:
                self._selector.unregister(connection._sock)
            else:  # redis-py has closed it; the selector only forgets
                for key in list(self._selector.get_map().values()):
                    self._selector.unregister(key.fileobj)
        connection.disconnect()
