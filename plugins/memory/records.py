"""What the memory store tells of a task."""

from __future__ import annotations

from everfaas_core.model.records import TaskRecord

from . import logs
from .tables import Tables, Task


def record_of(tables: Tables, task: Task) -> TaskRecord:
    """Return the whole record of a task; the caller holds the lock."""
    spec = task.spec
    return TaskRecord(
        task_id=task.task_id,
        function_id=spec.function_id,
        function_name=tables.functions[spec.function_id].name,
        status=task.status,
        submitted_ms=task.submitted_ms,
        priority=task.priority,
        max_attempts=task.max_attempts,
        payload_size_bytes=len(spec.payload),
        not_before_ms=task.due_ms,
        deadline_ms=task.deadline_ms,
        timeout_s=task.timeout_s,
        group=spec.group,
        tags=spec.tags,
        attempts=tuple(task.attempts),
        ended_ms=task.ended_ms,
        expires_ms=task.expires_ms,
        cause=task.cause,
        error=task.error,
        result_size_bytes=len(task.result),
        cancel_requested=task.cancelled,
        retry_of=spec.retry_of,
        progress=logs.progress(task),
    )
