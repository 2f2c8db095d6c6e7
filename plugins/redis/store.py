"""`ports.Store` on one Redis or Valkey server. What is atomic, and how, stands in the Lua scripts beside it."""

from __future__ import annotations

import os
import re
import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec

from everfaas_core.model.errors import IdempotencyConflict, QueueFull, StoreRefused, UnknownFunction
from everfaas_core.model.ids import SECRET_BYTES, DispatcherId, FunctionId, TaskId, WorkerId
from everfaas_core.model.output import LogPage, cursor_of, read_cursor
from everfaas_core.model.records import (
    FleetReport,
    FunctionRecord,
    GroupPage,
    ResultRecord,
    TaskDefaults,
    TaskFilter,
    TaskPage,
    TaskRecord,
    TaskSpec,
    Turn,
    TurnReply,
)
from everfaas_core.model.states import Status
from everfaas_core.ports import StoreHealth, Watch

from . import records
from .address import parse_url
from .blobs import Blobs, is_large
from .server import Call, Server
from .turns import Conclusions, Tags, calls_of, lost_results, reply_of
from .watch import RedisWatch

VERSION_MIN: Final = (7, 0)  # Valkey 7.2 and later say so too, as `redis_version`
PAGE_MAX: Final = 1000  # tasks or functions of one page
SCAN_MAX: Final = 2000  # tasks that one page's filter looks at
RESIGN_MAX: Final = 20_000  # claims that a dispatcher puts back by itself when it leaves
DISPATCHERS_MAX: Final = 1024  # whose tags are remembered; one, outside of tests

_TOPICS: Final = ("work", "ended")
_CURSOR: Final = re.compile(r"[0-9]{1,16}")  # of a group: the number of an end


class RedisStore:
    """Implements `ports.Store`. Nothing is connected before the first call."""

    def __init__(self, url: str, defaults: TaskDefaults | None = None) -> None:
        self._server = Server(parse_url(url))
        self._defaults = defaults or TaskDefaults()
        self._kind = "redis"
        self._blobs = Blobs(self._server)
        self._conclusions = Conclusions()
        self._tags: dict[DispatcherId, Tags] = {}
        self._lock = threading.Lock()

    def prepare(self) -> None:
        """Connect, check version and policy, load the scripts. Raises StoreRefused or StoreUnavailable."""
        server, memory = self._server.command("INFO", "server"), self._server.command("INFO", "memory")
        self._kind = _fit(self._server.shown, {**_info(server), **_info(memory)})
        self._server.load()

    def secret(self) -> bytes:
        """Return the secret of this store's task ids, made by whoever asks first."""
        key = f"{self._server.prefix}secret"
        secret: bytes | None = self._server.command("GET", key)
        if secret is None:  # only now write: a full server, or a replica, still tells
            self._server.command("SET", key, os.urandom(SECRET_BYTES), "NX")
            secret = self._server.command("GET", key)
        assert secret is not None
        return secret

    # functions

    def put_function(self, record: FunctionRecord) -> bool:
        """Store a function under its id, unless it is there."""
        o = record.options
        retry_on = msgspec.msgpack.encode(o.retry_on) if o.retry_on else None
        inherited = (o.priority, o.max_attempts, o.timeout_s, o.retry_backoff_s or None, o.result_ttl_s, retry_on)
        options = msgspec.msgpack.encode(o)
        values = ["" if value is None else value for value in inherited]
        return bool(self._run("put_function", record.function_id, record.name, record.payload, options, *values))

    def functions(self, ids: Sequence[FunctionId]) -> Sequence[FunctionRecord | None]:
        """Return functions, in order."""
        return records.functions(ids, self._run("functions", *ids)) if ids else []

    def list_functions(self, cursor: str | None, limit: int) -> tuple[Sequence[FunctionRecord], str | None]:
        """Return a page of functions, newest first."""
        limit = max(1, min(limit, PAGE_MAX))
        start = f"({cursor}" if cursor else "+"
        key = f"{self._server.prefix}functions"
        members = self._server.command("ZRANGE", key, start, "-", "BYLEX", "REV", "LIMIT", 0, limit + 1)
        names = [member.decode() for member in members[:limit]]
        found = self.functions([FunctionId(name.partition(":")[2]) for name in names])
        return [record for record in found if record], names[-1] if len(members) > limit else None

    # tasks, seen by clients

    def submit(self, specs: Sequence[TaskSpec], queue_max: int) -> Sequence[TaskId]:
        """Store and enqueue all, or none; one script, whatever their number. Large payloads go before it."""
        if not specs:
            return []
        large = {self._blobs.payload_key(spec.task_id): spec.payload for spec in specs if is_large(spec.payload)}
        self._blobs.put(large)
        reply = self._submit(specs, queue_max, apart=bool(large))
        if reply[0] == b"lost":  # the server was out of memory, or stopped for long: it takes them, or says why not
            reply = self._submit(specs, queue_max, apart=False)
        if reply[0] == b"unknown":
            raise UnknownFunction(f"function {reply[1].decode()} is not registered", hint="register it first")
        if reply[0] == b"full":
            raise QueueFull(
                f"{reply[1]} tasks are queued, and at most {queue_max} may be", hint="try again when some have run"
            )
        if reply[0] == b"conflict":
            raise IdempotencyConflict(
                f"the idempotency key {reply[1].decode()!r} stands for task {reply[2].decode()}, which is another call",
                hint="a key belongs to one function and one payload, byte for byte: choose another key",
            )
        ids = [spec.task_id for spec in specs]
        for i in range(1, len(reply), 2):
            ids[reply[i]] = TaskId(reply[i + 1].decode())
        return ids

    def _submit(self, specs: Sequence[TaskSpec], queue_max: int, *, apart: bool) -> Any:
        """Run the script; `apart`: it finds large payloads in keys of their own."""
        defaults = self._defaults
        arguments: list[Any] = [queue_max, defaults.priority, defaults.max_attempts, defaults.result_ttl_s]
        for spec in specs:
            if apart and is_large(spec.payload):
                arguments += (spec.task_id, spec.function_id, b"", _packed(spec, len(spec.payload)))
            else:
                arguments += (spec.task_id, spec.function_id, spec.payload, _packed(spec))
        return self._run("submit", *arguments)

    def tasks(self, ids: Sequence[TaskId]) -> Sequence[TaskRecord | None]:
        """Return whole records, in order."""
        if not ids:
            return []
        rows = self._run("records", records.ATTEMPTS_KEPT, *ids)
        return [records.task(task, row) for task, row in zip(ids, rows, strict=True)]

    def results(self, ids: Sequence[TaskId]) -> Sequence[ResultRecord | None]:
        """Return statuses and results, in order."""
        if not ids:
            return []
        rows = self._run("results", "1", *ids)
        results = self._blobs.results(ids, rows[1::2])
        return [
            ResultRecord(task_id=task, status=Status(status.decode()), result=result)
            if status and result is not None
            else None
            for task, status, result in zip(ids, rows[::2], results, strict=True)
        ]

    def statuses(self, ids: Sequence[TaskId]) -> Sequence[str | None]:
        """Return statuses, in order."""
        return [status.decode() or None for status in self._run("results", "", *ids)] if ids else []

    def list_tasks(self, where: TaskFilter, cursor: str | None, limit: int) -> TaskPage:
        """Return a page of tasks, newest first. The cursor is a task id."""
        limit = max(1, min(limit, PAGE_MAX))
        conditions = (where.status or "", where.function_id or "", where.tag or "", where.cause or "")
        reply = self._run("list", where.group or "", cursor or "", limit, SCAN_MAX, *conditions)
        found = self.tasks([TaskId(task.decode()) for task in reply[1:]])
        return TaskPage(tasks=tuple(record for record in found if record), cursor=reply[0].decode() or None)

    def group_results(
        self, group: str, cursor: str | None, limit: int, *, bytes_max: int, with_results: bool = True
    ) -> GroupPage:
        """Return a page of a group's results, in the order of their ends. The cursor is the number of an end."""
        if cursor is not None and not _CURSOR.fullmatch(cursor):
            raise ValueError(f"a cursor of a group is a number of at most 16 digits, not {cursor!r}")
        limit = max(1, min(limit, PAGE_MAX))
        reply = self._run("group", group, cursor or "0", limit, bytes_max, "1" if with_results else "")
        results = self._blobs.results([TaskId(task.decode()) for task in reply[4::5]], reply[7::5])
        return records.group_page(reply, results)

    def task_log(
        self, task_id: TaskId, cursor: str | None, *, bytes_max: int, attempt: int | None = None
    ) -> LogPage | None:
        """Return what is kept of a task's output behind a cursor."""
        first, last = f"({cursor_of(*read_cursor(cursor))}", "+"
        if attempt is not None:
            known = read_cursor(cursor)[0]
            first, last = (f"{attempt}-0" if known < attempt else first), f"{attempt}"
            if known > attempt:
                first, last = "+", "-"  # nothing
        reply = self._run("log", task_id, first, last, bytes_max)
        return None if reply is None else records.log_page(reply, cursor)

    def cancel(self, ids: Sequence[TaskId], *, running: bool = True) -> Sequence[str | None]:
        """Cancel tasks, and mark those that run."""
        if not ids:
            return []
        said = self._run("cancel", *self._conclusions.cancelled, "1" if running else "", *ids)
        return [status.decode() or None for status in said]

    def retry(self, task_id: TaskId, new_id: TaskId) -> TaskId | None:
        """Submit the call of a task that has failed, or was cancelled, as a new task."""
        return TaskId(self._run("retry", task_id, new_id).decode()) or None

    def drain_worker(self, worker_id: WorkerId) -> bool:
        """Mark a worker, for its dispatcher to hear of with its next report."""
        return bool(self._run("drain", worker_id))

    def fleet(self) -> Sequence[FleetReport]:
        """Return the reports of all dispatchers that live."""
        return [msgspec.msgpack.decode(report, type=FleetReport) for report in self._run("fleet", "1")[5:]]

    def health(self) -> StoreHealth:
        """Ask for the numbers."""
        queued, delayed, dispatchers, slots, ended = self._run("fleet", "")
        ready = max(queued - delayed, 0)
        return StoreHealth(
            kind=self._kind, queued=queued, ready=ready, dispatchers=dispatchers, slots=slots, ended=ended
        )

    # dispatchers

    def exchange(self, turn: Turn) -> TurnReply:
        """Apply one turn in one pipeline.

        When it fails, what may have been claimed or adopted by it is given again by the next one that claims or
        sweeps. Cancels come with each turn that reports, claims or sweeps; so does `evicted`.
        """
        tags = self._tags_of(turn.dispatcher_id)
        tags.begin(time.time_ns() // 1000)
        used = tags.of(turn)
        calls = calls_of(turn, tags, self._conclusions)
        if not calls:
            return TurnReply()
        for tag in used:
            tag.lost = True  # until proved otherwise
        reply = reply_of(turn, calls, self._exchange(turn, calls))
        for tag in used:
            tag.arrived()
        tags.leased = tags.leased or tags.lease in used
        return reply

    def _exchange(self, turn: Turn, calls: Sequence[Call]) -> list[Any]:
        """Run the calls; large results go before them, and the large payloads that they give come after."""
        large = [item for item in turn.finishes if is_large(item.result)]
        self._blobs.put({self._blobs.result_key(item.task_id, item.attempt): item.result for item in large})
        replies = self._server.run(*calls)
        if large and (again := lost_results(turn, calls, replies)):
            again.put(self._server.run(*again.calls))
        self._blobs.fill(calls, replies)
        return replies

    def reply_lost(self, turn: Turn) -> None:
        """Behave as if the answer to the last exchange, of this turn, had not arrived. For fault injection."""
        for tag in self._tags_of(turn.dispatcher_id).of(turn):
            tag.revoke()

    def resign(self, dispatcher_id: DispatcherId) -> None:
        """Give up the lease, and put back what was not started."""
        self._run("resign", dispatcher_id, RESIGN_MAX)
        with self._lock:
            self._tags.pop(dispatcher_id, None)

    # wake-ups

    def watch(self, topic: str) -> Watch:
        """Subscribe to a topic. Raises StoreUnavailable."""
        if topic not in _TOPICS:
            raise ValueError(f"topic is one of {_TOPICS}, not {topic!r}")
        return RedisWatch(self._server.connect, self._server.explain, f"{self._server.prefix}{topic}")

    def close(self) -> None:
        """Close all connections but those of watches. Idempotent."""
        self._server.close()

    def _run(self, script: str, *arguments: Any) -> Any:
        return self._server.run(Call(script, arguments))[0]

    def _tags_of(self, dispatcher_id: DispatcherId) -> Tags:
        with self._lock:
            if dispatcher_id not in self._tags:
                if len(self._tags) >= DISPATCHERS_MAX:
                    del self._tags[next(iter(self._tags))]
                self._tags[dispatcher_id] = Tags()
            return self._tags[dispatcher_id]


def _packed(spec: TaskSpec, size_bytes: int | None = None) -> bytes:
    """Return what a task says beyond function and payload; b"" for the usual one. `size_bytes`: of a payload apart."""
    values = (
        spec.priority,
        spec.delay_s or None,
        spec.timeout_s,
        spec.deadline_s,
        spec.max_attempts,
        spec.result_ttl_s,
        spec.idempotency_key,
        spec.group,
        spec.tags or None,
        spec.retry_backoff_s,
        spec.retry_on,
        spec.retry_of,
        size_bytes,
    )
    return msgspec.msgpack.encode(values) if any(value is not None for value in values) else b""


def _info(reply: bytes) -> dict[str, str]:
    lines = (line.partition(":") for line in reply.decode(errors="replace").splitlines())
    return {name: value for name, colon, value in lines if colon}


def _fit(shown: str, info: Mapping[str, str]) -> str:
    """Return the server's name and version. Raises StoreRefused if it can't be a store."""
    version = info.get("redis_version", "")
    numbers = tuple(int(number) for number in re.findall(r"\d+", version)[:2])
    if numbers < VERSION_MIN:
        raise StoreRefused(
            f"the server at {shown} is Redis {version or 'of unknown version'}; Redis 7.0 or Valkey 7.2 is the oldest",
            hint="`everfaas store` starts a Valkey that fits; --store URL names another",
        )
    if info.get("redis_mode") == "cluster":
        raise StoreRefused(
            f"the server at {shown} is part of a cluster, whose keys are spread over several",
            hint="use a single server (with replicas, if you like): --store URL",
        )
    policy = info.get("maxmemory_policy", "unknown")
    if policy != "noeviction":
        raise StoreRefused(
            f"the server at {shown} would evict tasks when memory is short: maxmemory-policy is {policy}",
            hint="set `maxmemory-policy noeviction` in its configuration",
        )
    if "valkey_version" in info:
        return f"valkey {info['valkey_version']}"
    return f"redis {version}"
