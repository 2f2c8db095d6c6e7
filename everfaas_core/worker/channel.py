"""The pipe between a worker and one slot: messages as frames over a socket pair.

A message is a u32 count, a u64 length for each frame, and the frames of `wire.codec`. The worker's end never blocks:
what does not fit is kept and sent when there is room; a large message is received straight into a buffer of its size.
The slot's end is plain and blocking.
"""

from __future__ import annotations

import os
import socket
import struct
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Final, Generic, TypeVar

from everfaas_core.model.errors import WireError
from everfaas_core.wire.codec import Frame, decode_to_dispatcher, decode_to_worker, encode
from everfaas_core.wire.messages import Outcomes, Tasks

BUFFER_BYTES: Final = 64 * 1024
FRAMES_MAX: Final = 4096
MESSAGE_BYTES_MAX: Final = 2 * 1024**3
"""A longer message is malformed: results and payloads are limited far below it."""

SENT_PARTS_MAX: Final = 64  # buffers of one system call; far below IOV_MAX
TOKENS_MAX: Final = 256  # in a slot's pipe; so many are told apart
READS_PER_TURN: Final = 32
"""Reads of one channel in one turn, so that a stream of results can't keep the worker from its other slots."""

SOCKET_BYTES: Final = 1024 * 1024
"""What the kernel may hold of a pipe in each direction, if the machine allows so much: a large message then takes few
turns of the worker, and its slot need not wait for them."""

_COUNT: Final = struct.Struct("<I")
M = TypeVar("M")


def pack(frames: Sequence[Frame]) -> list[Frame]:
    """Return the parts to send for a message of these frames."""
    lengths = (len(frame) for frame in frames)
    return [struct.pack(f"<I{len(frames)}Q", len(frames), *lengths), *frames]


def make_pipe() -> tuple[socket.socket, socket.socket]:
    """Return the two ends, the worker's and the slot's. Raises OSError."""
    ends = socket.socketpair()
    for end in ends:
        end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SOCKET_BYTES)
    return ends


class Inbox(Generic[M]):
    """Puts received bytes together to messages. Raises WireError for what can't be one."""

    def __init__(self, decode: Callable[[Sequence[Frame]], M]) -> None:
        self._decode = decode
        self._buffer = bytearray(BUFFER_BYTES)
        self._end = 0

    def space(self) -> memoryview:
        """Return where the next bytes go."""
        return memoryview(self._buffer)[self._end :]

    def filled(self, count: int) -> list[M]:
        """Note that `count` bytes were written to `space`; return the messages that are now whole."""
        self._end += count
        messages = []
        start = 0
        needed = 0
        while True:
            layout = self._layout(start)
            if layout is None:
                break
            lengths, head = layout
            needed = head + sum(lengths)
            if self._end - start < needed:
                break
            messages.append(self._decode(list(self._frames(start + head, lengths))))
            start += needed
            needed = 0
        self._compact(start, needed)
        return messages

    def _layout(self, start: int) -> tuple[tuple[int, ...], int] | None:
        """Return the frames' lengths and the size of the header, or None while it has not come in whole."""
        available = self._end - start
        if available < _COUNT.size:
            return None
        (count,) = _COUNT.unpack_from(self._buffer, start)
        if not 0 < count <= FRAMES_MAX:
            raise WireError(f"a message claims to have {count} frames")
        head = _COUNT.size + 8 * count
        if available < head:
            return None
        lengths = struct.unpack_from(f"<{count}Q", self._buffer, start + _COUNT.size)
        if sum(lengths) > MESSAGE_BYTES_MAX:
            raise WireError(f"a message claims to have {sum(lengths)} bytes")
        return lengths, head

    def _frames(self, at: int, lengths: Sequence[int]) -> Iterator[Frame]:
        view = memoryview(self._buffer)
        for length in lengths:
            yield view[at : at + length]
            at += length

    def _compact(self, start: int, needed: int) -> None:
        """Move what is left to the front of a buffer that the rest fits into."""
        left = self._end - start
        size = max(needed, BUFFER_BYTES)
        if start == 0 and size == len(self._buffer):
            return
        rest = bytes(memoryview(self._buffer)[start : self._end])
        if size != len(self._buffer):
            self._buffer = bytearray(size)
        self._buffer[:left] = rest
        self._end = left


class Tokens:
    """A pipe with one byte for each task that a slot was fed and has not begun: the permission to begin it.

    The slot takes a byte before it begins a task; the worker can take back those that are left. The kernel gives each
    byte to one of them only, so a task that was taken back never begins, and both know it at once.
    """

    def __init__(self) -> None:
        self.reader, self._writer = os.pipe()
        for fd in (self.reader, self._writer):
            os.set_blocking(fd, False)
        self._given = 0

    def give(self, count: int) -> None:
        """Permit the next `count` tasks. A pipe holds far more than a slot is ever fed."""
        os.write(self._writer, bytes((self._given + at) & 0xFF for at in range(count)))
        self._given += count

    def take_back(self) -> int:
        """Return how many of the last tasks were not begun, and never will be."""
        try:
            return len(os.read(self.reader, TOKENS_MAX))
        except BlockingIOError:
            return 0

    def close(self) -> None:
        os.close(self.reader)
        os.close(self._writer)


class Channel:
    """The worker's end, to one life of a slot."""

    def __init__(self, end: socket.socket, birth: int, tokens: Tokens) -> None:
        end.setblocking(False)
        self._socket = end
        self._tokens = tokens
        self._inbox: Inbox[Outcomes] = Inbox(_outcomes)
        self._outgoing: deque[memoryview] = deque()
        self.birth = birth
        self.ended = False  # nothing more will come in
        self.watched_for_room = False

    def fileno(self) -> int:
        """Return the descriptor to wait on."""
        return self._socket.fileno()

    @property
    def choked(self) -> bool:
        """Whether something waits for room: then wait for the descriptor to be writable."""
        return bool(self._outgoing)

    def feed(self, tasks: Tasks) -> None:
        """Send as much as there is room for, and keep the rest."""
        self._tokens.give(len(tasks.items))
        self._outgoing.extend(memoryview(part) for part in pack(encode(tasks)))
        self.flush()

    def recall(self) -> int:
        """Take back what the slot has not begun; return how many tasks, the last ones, that are."""
        return self._tokens.take_back()

    def flush(self) -> None:
        """Send what was kept, as far as there is room."""
        while self._outgoing:
            parts = [self._outgoing[at] for at in range(min(len(self._outgoing), SENT_PARTS_MAX))]
            try:
                sent = self._socket.sendmsg(parts)
            except BlockingIOError:
                return
            except OSError:  # the slot is gone: its death is told by the nursery
                self._outgoing.clear()
                return
            while sent or (self._outgoing and not len(self._outgoing[0])):
                part = self._outgoing.popleft()
                if sent < len(part):
                    self._outgoing.appendleft(part[sent:])
                    break
                sent -= len(part)

    def receive(self) -> list[Outcomes]:
        """Return what has come in. Raises WireError if that is no message: then the slot is to be killed."""
        messages: list[Outcomes] = []
        for _ in range(READS_PER_TURN):
            if self.ended:
                break
            try:
                count = self._socket.recv_into(self._inbox.space())
            except BlockingIOError:
                break
            except OSError:
                count = 0
            if not count:
                self.ended = True
                break
            messages.extend(self._inbox.filled(count))
        return messages

    def close(self) -> None:
        """Close the descriptors."""
        self._socket.close()
        self._tokens.close()


class SlotPipe:
    """The slot's end."""

    def __init__(self, end: socket.socket, tokens_fd: int) -> None:
        end.setblocking(True)
        self._socket = end
        self._tokens_fd = tokens_fd
        self._come = 0  # tasks that have come in
        self._token: int | None = None  # taken, and not used yet
        self._inbox: Inbox[Tasks] = Inbox(_tasks)

    def send(self, outcomes: Outcomes) -> None:
        """Send, however long it takes. Raises OSError when the worker is gone."""
        parts = deque(memoryview(part) for part in pack(encode(outcomes)))
        while parts:
            sent = self._socket.sendmsg([parts[at] for at in range(min(len(parts), SENT_PARTS_MAX))])
            while parts and sent >= len(parts[0]):
                sent -= len(parts.popleft())
            if sent:
                parts[0] = parts[0][sent:]

    def receive(self) -> list[Tasks]:
        """Wait for messages. Raises EOFError when the worker is gone."""
        while True:
            count = self._socket.recv_into(self._inbox.space())
            if not count:
                raise EOFError
            messages = self._inbox.filled(count)
            if messages:
                return messages

    def may_begin(self) -> bool:
        """Take the permission for the next task, in the order in which they came; False: it was taken back.

        Raises OSError if the function before has closed the pipe, EOFError when the worker is gone.
        """
        wanted = self._come & 0xFF
        self._come += 1
        if self._token is None:
            try:
                token = os.read(self._tokens_fd, 1)
            except BlockingIOError:
                return False
            if not token:
                raise EOFError
            self._token = token[0]
        if self._token != wanted:  # those in between were taken back, and others were permitted since
            return False
        self._token = None
        return True


def _outcomes(frames: Sequence[Frame]) -> Outcomes:
    message = decode_to_dispatcher(frames)
    if not isinstance(message, Outcomes):
        raise WireError(f"a slot sent a {type(message).__name__}")
    return message


def _tasks(frames: Sequence[Frame]) -> Tasks:
    message = decode_to_worker(frames)
    if not isinstance(message, Tasks):
        raise WireError(f"a worker sent a {type(message).__name__}")
    return message
