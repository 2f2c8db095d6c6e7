"""A walk over a pickle stream that executes nothing: is it complete, and what kind of thing would it load?

The walk knows each opcode's width and what it does to the stack (from `pickletools`, the standard library's own
table), keeps one byte per stack item, and stops at the first thing that no unpickler would survive. It imports, calls
and builds nothing; strings are decoded only to see that they can be.
"""

from __future__ import annotations

import io
import pickletools
from collections.abc import Callable
from typing import Final

MARKS_MAX: Final = 100_000  # open marks: genuine streams nest as deep as their pickler's recursion, about a thousand
SPARSE_MEMO_MAX: Final = 10_000  # memo entries out of sequence; picklers number theirs 0, 1, 2 …

OPAQUE: Final = 1  # what a global, a call or a persistent id yields: anything, perhaps a callable
LITERAL: Final = 2  # a number, text, bytes, None, bool, tuple, list, dict or set: surely no callable

Handler = Callable[["_Walk", int, int], int]


class ScanError(ValueError):
    """The bytes are not one complete pickle stream; the message says why and where."""


def scan(data: bytes) -> int:
    """Walk the whole stream; return OPAQUE or LITERAL, the kind of what it would load. Raises ScanError."""
    walk = _Walk(data)
    try:
        return walk.run()
    except IndexError:
        raise ScanError("it ends before its STOP opcode") from None


class _Walk:
    """One walk's state. Handlers get the opcode and its position, and return the next one's."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.stack = bytearray()  # a kind for each item
        self.marks: list[int] = []  # stack heights
        self.memo = bytearray()
        self.sparse: dict[int, int] = {}

    def run(self) -> int:
        data, push, pushed, width, handlers = self.data, self.stack.append, _PUSHED, _WIDTH, _HANDLERS
        at = 0
        while True:
            code = data[at]
            kind = pushed[code]
            if kind:
                push(kind)
                at += width[code]
            elif code == _SHORT_TEXT:  # here rather than in `sized`: with MEMOIZE it is half of a usual stream
                end = at + 2 + data[at + 1]
                self.check_text(at + 2, end)
                push(LITERAL)
                at = end
            elif code == _STOP:
                return self.stop(at)
            else:
                handler = handlers[code]
                if handler is None:
                    raise ScanError(f"byte {at} is no opcode")
                at = handler(self, code, at)

    def stop(self, at: int) -> int:
        if at != len(self.data) - 1:
            raise ScanError(f"{len(self.data) - 1 - at} bytes follow its STOP opcode")
        if self.marks or len(self.stack) != 1:
            raise ScanError(f"its STOP opcode finds {len(self.stack)} items on the stack instead of one")
        return self.stack[0]

    def need(self, count: int, at: int) -> None:
        """Insist on `count` items above the last mark."""
        if len(self.stack) - (self.marks[-1] if self.marks else 0) < count:
            raise ScanError(f"the opcode at byte {at} finds too few items on the stack")

    def remember(self, index: int, at: int) -> None:
        stack, marks = self.stack, self.marks
        if not stack or (marks and marks[-1] == len(stack)):  # as `need` would find; here for speed
            self.need(1, at)
        kind = stack[-1]
        if index == len(self.memo) and not self.sparse:
            self.memo.append(kind)
        elif 0 <= index < len(self.memo):
            self.memo[index] = kind
        elif index < 0 or len(self.sparse) >= SPARSE_MEMO_MAX:
            raise ScanError(f"the opcode at byte {at} stores under an implausible memo number")
        else:
            self.sparse[index] = kind

    def recall(self, index: int, at: int) -> None:
        kind = self.memo[index] if 0 <= index < len(self.memo) else self.sparse.get(index)
        if kind is None:
            raise ScanError(f"the opcode at byte {at} reads a memo number that was never stored")
        self.stack.append(kind)

    def fixed_arg(self, code: int, at: int) -> int:
        end = at + _WIDTH[code]
        if end > len(self.data):
            raise IndexError
        return int.from_bytes(self.data[at + 1 : end], "little")

    # ── handlers ─────────────────────────────────────────────────────────────────────────────────────────────────────

    def skip(self, code: int, at: int) -> int:
        return at + _WIDTH[code]

    def sized(self, code: int, at: int) -> int:
        """An argument of counted bytes."""
        start = at + _WIDTH[code]
        size = int.from_bytes(self.data[at + 1 : start], "little", signed=code in _SIGNED)
        if size < 0:
            raise ScanError(f"the opcode at byte {at} has a negative size")
        end = start + size
        if end > len(self.data):
            raise IndexError
        if code in _TEXT:
            self.check_text(start, end)
        self.stack.append(LITERAL)
        return end

    def check_text(self, start: int, end: int) -> None:
        text = self.data[start:end]
        try:
            if not text.isascii():
                text.decode("utf-8", "surrogatepass")
        except UnicodeDecodeError:
            raise ScanError(f"the text at byte {start} is not UTF-8") from None

    def line(self, code: int, at: int) -> int:
        """An argument in the form of one or two lines (protocol 0)."""
        name, reader, lines, kind = _LINES[code]
        end = at
        for _ in range(lines):
            end = self.data.find(b"\n", end + 1)
            if end < 0:
                raise IndexError
        try:
            value = reader(io.BytesIO(self.data[at + 1 : end + 1]))
        except ValueError:
            raise ScanError(f"the line at byte {at} is malformed") from None
        if name == "PUT":
            self.remember(value, at)
        elif name == "GET":
            self.recall(value, at)
        else:
            if name == "INST":
                self.cut(at)
            self.stack.append(kind)
        return end + 1

    def put(self, code: int, at: int) -> int:
        self.remember(self.fixed_arg(code, at), at)
        return at + _WIDTH[code]

    def memoize(self, _code: int, at: int) -> int:
        self.remember(len(self.memo) + len(self.sparse), at)
        return at + 1

    def get(self, code: int, at: int) -> int:
        self.recall(self.fixed_arg(code, at), at)
        return at + _WIDTH[code]

    def mark(self, _code: int, at: int) -> int:
        if len(self.marks) >= MARKS_MAX:
            raise ScanError(f"it nests more than {MARKS_MAX} marks")
        self.marks.append(len(self.stack))
        return at + 1

    def cut(self, at: int) -> int:
        """Drop all above the last mark; return how many items that were."""
        if not self.marks:
            raise ScanError(f"the opcode at byte {at} finds no mark")
        height = self.marks.pop()
        count = len(self.stack) - height
        del self.stack[height:]
        return count

    def gather(self, code: int, at: int) -> int:
        """TUPLE, LIST, DICT, FROZENSET, OBJ: one item of all above the mark."""
        count = self.cut(at)
        if code == _DICT and count % 2:
            raise ScanError(f"the dict at byte {at} has a key without a value")
        if code == _OBJ and not count:
            raise ScanError(f"the opcode at byte {at} finds too few items on the stack")
        self.stack.append(OPAQUE if code == _OBJ else LITERAL)
        return at + 1

    def extend(self, code: int, at: int) -> int:
        """APPENDS, SETITEMS, ADDITEMS: the item below the mark takes all above it."""
        count = self.cut(at)
        if code == _SETITEMS and count % 2:
            raise ScanError(f"the items at byte {at} have a key without a value")
        self.need(1, at)
        return at + 1

    def combine(self, code: int, at: int) -> int:
        """Take a fixed number of items; push one, or leave the one below them as it is."""
        takes, kind = _COMBINED[code]
        if kind:
            self.need(takes, at)
            del self.stack[len(self.stack) - takes :]
            self.stack.append(kind)
        else:
            self.need(takes + 1, at)
            del self.stack[len(self.stack) - takes :]
        return at + 1

    def pop(self, _code: int, at: int) -> int:
        if self.marks and self.marks[-1] == len(self.stack):
            self.marks.pop()
        else:
            self.need(1, at)
            del self.stack[-1]
        return at + 1

    def pop_mark(self, _code: int, at: int) -> int:
        self.cut(at)
        return at + 1

    def dup(self, _code: int, at: int) -> int:
        self.need(1, at)
        self.stack.append(self.stack[-1])
        return at + 1


_OPCODES: Final = {opcode.name: opcode for opcode in pickletools.opcodes}


def _code(name: str) -> int:
    return ord(_OPCODES[name].code)


_STOP: Final = _code("STOP")
_SHORT_TEXT: Final = _code("SHORT_BINUNICODE")
_DICT: Final = _code("DICT")
_OBJ: Final = _code("OBJ")
_SETITEMS: Final = _code("SETITEMS")
_SIGNED: Final = frozenset({_code("LONG4"), _code("BINSTRING")})
_TEXT: Final = frozenset(_code(name) for name in ("SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8"))

_SIZE_WIDTHS: Final = {
    pickletools.TAKEN_FROM_ARGUMENT1: 1,
    pickletools.TAKEN_FROM_ARGUMENT4: 4,
    pickletools.TAKEN_FROM_ARGUMENT4U: 4,
    pickletools.TAKEN_FROM_ARGUMENT8U: 8,
}
# name → how many items it takes, and the kind that it pushes (0: the item below them stays, changed)
_COMBINED: Final = {
    _code(name): effect
    for name, effect in {
        "TUPLE1": (1, LITERAL),
        "TUPLE2": (2, LITERAL),
        "TUPLE3": (3, LITERAL),
        "STACK_GLOBAL": (2, OPAQUE),
        "REDUCE": (2, OPAQUE),
        "NEWOBJ": (2, OPAQUE),
        "NEWOBJ_EX": (3, OPAQUE),
        "BINPERSID": (1, OPAQUE),
        "APPEND": (1, 0),
        "SETITEM": (2, 0),
        "BUILD": (1, 0),
        "READONLY_BUFFER": (0, 0),
    }.items()
}
_SPECIAL: Final[dict[str, Handler]] = {
    "MARK": _Walk.mark,
    "POP": _Walk.pop,
    "POP_MARK": _Walk.pop_mark,
    "DUP": _Walk.dup,
    "MEMOIZE": _Walk.memoize,
    "BINPUT": _Walk.put,
    "LONG_BINPUT": _Walk.put,
    "BINGET": _Walk.get,
    "LONG_BINGET": _Walk.get,
    "PROTO": _Walk.skip,
    "FRAME": _Walk.skip,
    "TUPLE": _Walk.gather,
    "LIST": _Walk.gather,
    "DICT": _Walk.gather,
    "FROZENSET": _Walk.gather,
    "OBJ": _Walk.gather,
    "APPENDS": _Walk.extend,
    "SETITEMS": _Walk.extend,
    "ADDITEMS": _Walk.extend,
}


def _kind_pushed(opcode: pickletools.OpcodeInfo) -> int:
    return OPAQUE if opcode.stack_after == [pickletools.anyobject] else LITERAL


def _width(opcode: pickletools.OpcodeInfo) -> int:
    """Bytes of the opcode and its fixed argument, or of the size of a counted one."""
    if opcode.arg is None:
        return 1
    return 1 + _SIZE_WIDTHS.get(opcode.arg.n, max(opcode.arg.n, 0))


def _handler(opcode: pickletools.OpcodeInfo) -> Handler | None:
    if opcode.name in _SPECIAL:
        return _SPECIAL[opcode.name]
    if _code(opcode.name) in _COMBINED:
        return _Walk.combine
    if opcode.arg is not None and opcode.arg.n == pickletools.UP_TO_NEWLINE:
        return _Walk.line
    if opcode.arg is not None and opcode.arg.n < 0:
        return _Walk.sized
    return None  # a plain push, which `run` does itself, or STOP


_WIDTH: Final = [0] * 256
_PUSHED: Final = [0] * 256  # kinds of the opcodes that push one item and do nothing else
_HANDLERS: Final[list[Handler | None]] = [None] * 256
_LINES: Final = {
    _code(opcode.name): (
        opcode.name,
        opcode.arg.reader,
        2 if opcode.arg is pickletools.stringnl_noescape_pair else 1,
        _kind_pushed(opcode),
    )
    for opcode in pickletools.opcodes
    if opcode.arg is not None and opcode.arg.n == pickletools.UP_TO_NEWLINE
}
for _opcode in pickletools.opcodes:
    _WIDTH[_code(_opcode.name)] = _width(_opcode)
    _HANDLERS[_code(_opcode.name)] = _handler(_opcode)
    if _HANDLERS[_code(_opcode.name)] is None and _opcode.name != "STOP":
        _PUSHED[_code(_opcode.name)] = _kind_pushed(_opcode)
