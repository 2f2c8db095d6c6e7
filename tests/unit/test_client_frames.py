"""Where each object of a msgpack stream ends, however the bytes are cut."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from everfaas_core.client.frames import Frames

scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False)
    | st.text(max_size=300)
    | st.binary(max_size=300)
)
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=20) | st.dictionaries(st.text(max_size=40), inner, max_size=20)
)


def fed(data: bytes, cuts: list[int]) -> list[Any]:
    frames = Frames()
    found: list[Any] = []
    at = 0
    for cut in [*sorted(cuts), len(data)]:
        found += frames.feed(data[at:cut])
        at = max(at, cut)
    return found


@given(st.lists(values, max_size=8), st.lists(st.integers(0, 2000), max_size=12))
def test_objects_come_out_as_they_went_in(objects: list[Any], cuts: list[int]) -> None:
    data = b"".join(map(msgspec.msgpack.encode, objects))
    assert fed(data, [min(cut, len(data)) for cut in cuts]) == objects


@pytest.mark.parametrize("size", [31, 32, 255, 256, 65_535, 65_536, 1_000_000])
def test_every_width_of_a_length(size: int) -> None:
    objects: list[Any] = ["x" * size, b"y" * size, [1] * size, {str(n): n for n in range(min(size, 70_000))}, None]
    data = b"".join(map(msgspec.msgpack.encode, objects))
    assert fed(data, [1, 2, 3, 5, size, size + 7, 2 * size + 4]) == objects


def test_extensions_are_passed_over() -> None:
    data = b"".join(
        map(msgspec.msgpack.encode, [msgspec.msgpack.Ext(5, b"z" * size) for size in (1, 2, 4, 8, 16, 300)])
    )
    assert [item.data for item in fed(data, [4, 9, 30])] == [b"z" * size for size in (1, 2, 4, 8, 16, 300)]


def test_what_is_no_msgpack_is_refused() -> None:
    with pytest.raises(ValueError, match="no type"):
        list(Frames().feed(b"\xc1"))
    with pytest.raises(ValueError, match="claims to have"):
        list(Frames().feed(b"\xdb\xff\xff\xff\xff"))
