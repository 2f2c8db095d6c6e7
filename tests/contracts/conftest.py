"""Servers for the store tests: one of each kind for a worker process of xdist, and keys of its own for each test."""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from everfaas_core.testing.servers import embedded_store, redis_server

_numbers = itertools.count()


@pytest.fixture(scope="session")
def valkey_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with embedded_store(tmp_path_factory.mktemp("valkey")) as url:
        yield url


@pytest.fixture(scope="session")
def redis_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    if shutil.which("redis-server") is None:
        pytest.skip("there is no redis-server on PATH")
    with redis_server(tmp_path_factory.mktemp("redis")) as url:
        yield url


@pytest.fixture
def fresh() -> Callable[[str], str]:
    """Return the URL of an empty store on a server that other tests use too."""
    return lambda url: f"{url}?prefix=test{next(_numbers)}:"


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    return tmp_path / "data"
