"""What answers look like, for the OpenAPI document. The tests hold every answer against these."""

from __future__ import annotations

from marshmallow import RAISE, Schema, fields

_RESULT = {"description": 'Base64 text of a pickle ("" until the task has ended); in msgpack, the raw bytes.'}


class Answer(Schema):
    class Meta:
        unknown = RAISE


class ErrorBody(Answer):
    code = fields.String(required=True)
    message = fields.String(required=True)
    details = fields.Dict()
    hint = fields.String()


class ErrorAnswer(Answer):
    error = fields.Nested(ErrorBody, required=True)
    detail = fields.String(required=True)


class FunctionRegistered(Answer):
    function_id = fields.UUID(required=True)


class TaskAccepted(Answer):
    task_id = fields.UUID(required=True)


class StatusAnswer(Answer):
    task_id = fields.UUID(required=True)
    status = fields.String(required=True)


class ResultAnswer(StatusAnswer):
    result = fields.String(required=True, metadata=_RESULT)


class SubmitAnswer(Answer):
    task_id = fields.UUID(required=True)
    status = fields.String(metadata={"description": "With wait_s only."})
    result = fields.String(metadata=_RESULT)


class BatchAnswer(Answer):
    task_ids = fields.List(fields.UUID(), required=True)


class OptionsAnswer(Answer):
    timeout_s = fields.Float()
    max_attempts = fields.Integer()
    retry_backoff_s = fields.Float()
    retry_on = fields.List(fields.String())
    priority = fields.Integer()
    result_ttl_s = fields.Float()
    python = fields.String()


class FunctionAnswer(Answer):
    function_id = fields.UUID(required=True)
    name = fields.String(required=True)
    options = fields.Nested(OptionsAnswer, required=True)
    payload_size_bytes = fields.Integer(required=True)
    created_ms = fields.Integer(required=True)


class FunctionCreated(Answer):
    function_id = fields.UUID(required=True)
    created = fields.Boolean(required=True, metadata={"description": "False: it was there already."})


class FunctionList(Answer):
    functions = fields.List(fields.Nested(FunctionAnswer), required=True)
    cursor = fields.String(required=True, allow_none=True)


class AttemptAnswer(Answer):
    attempt = fields.Integer(required=True)
    worker = fields.String(required=True)
    leased_ms = fields.Integer(required=True)
    started_ms = fields.Integer(required=True)
    ended_ms = fields.Integer(required=True, allow_none=True)
    cause = fields.String(required=True, allow_none=True)
    run_s = fields.Float(required=True, allow_none=True)


class ProgressAnswer(Answer):
    done = fields.Float(required=True)
    total = fields.Float(required=True, allow_none=True)
    message = fields.String(required=True)
    at_ms = fields.Integer(required=True)


class TaskAnswer(Answer):
    task_id = fields.UUID(required=True)
    function_id = fields.UUID(required=True)
    function_name = fields.String(required=True)
    status = fields.String(required=True)
    submitted_ms = fields.Integer(required=True)
    priority = fields.Integer(required=True)
    max_attempts = fields.Integer(required=True)
    payload_size_bytes = fields.Integer(required=True)
    not_before_ms = fields.Integer(required=True, allow_none=True)
    deadline_ms = fields.Integer(required=True, allow_none=True)
    timeout_s = fields.Float(required=True, allow_none=True)
    group = fields.String(required=True, allow_none=True)
    tags = fields.List(fields.String(), required=True)
    attempts = fields.List(fields.Nested(AttemptAnswer), required=True)
    ended_ms = fields.Integer(required=True, allow_none=True)
    expires_ms = fields.Integer(required=True, allow_none=True)
    cause = fields.String(required=True, allow_none=True)
    error = fields.String(required=True, allow_none=True)
    result_size_bytes = fields.Integer(required=True)
    cancel_requested = fields.Boolean(required=True)
    retry_of = fields.UUID(
        required=True, allow_none=True, metadata={"description": "The task whose call this one repeats."}
    )
    progress = fields.Nested(
        ProgressAnswer,
        required=True,
        allow_none=True,
        metadata={"description": "What its latest attempt has said of how far it is."},
    )


class TaskRetried(Answer):
    task_id = fields.UUID(required=True, metadata={"description": "The new task."})
    retry_of = fields.UUID(required=True)


class TaskList(Answer):
    tasks = fields.List(fields.Nested(TaskAnswer), required=True)
    cursor = fields.String(required=True, allow_none=True)


class CancelAnswer(Answer):
    tasks = fields.List(fields.Nested(StatusAnswer), required=True)
    unknown_ids = fields.List(fields.String(), required=True, data_key="unknown")
    expired_ids = fields.List(fields.String(), required=True, data_key="expired")


class EndedAnswer(StatusAnswer):
    result = fields.String(metadata=_RESULT)


class WaitAnswer(Answer):
    ended = fields.List(fields.Nested(EndedAnswer), required=True)
    pending = fields.Integer(required=True, metadata={"description": "How many of the ids have not ended."})
    more = fields.Boolean(
        required=True, metadata={"description": "True: more have ended than fit into this answer; ask again."}
    )
    unknown_ids = fields.List(fields.String(), required=True, data_key="unknown")
    expired_ids = fields.List(fields.String(), required=True, data_key="expired")


class GroupLine(Answer):
    """One object of a stream: a result, or the last one, which says why it is."""

    task_id = fields.UUID(metadata={"description": "With status and result: a task that has ended."})
    status = fields.String()
    result = fields.String(metadata=_RESULT)
    tags = fields.List(fields.String(), metadata={"description": "Of the task, if it has any."})
    cursor = fields.String(required=True, metadata={"description": "A stream that begins with it goes on behind this."})
    end = fields.String(metadata={"description": "In the last object only: done, time, limit, drain or error."})
    tasks = fields.Integer(metadata={"description": "How many tasks of the group the store has a record of."})
    pending = fields.Integer(metadata={"description": "How many of these have not ended."})


class LogLine(Answer):
    """One object of a log: a piece of what the task has printed, or the last one, which says why it is."""

    stream = fields.String(metadata={"description": "stdout or stderr."})
    text = fields.String(metadata={"description": "Perhaps several lines, perhaps a part of one."})
    attempt = fields.Integer()
    at_ms = fields.Integer(metadata={"description": "When it was stored."})
    left_out_bytes = fields.Integer(
        metadata={"description": "How much of the attempt's output is missing before this, if any is."}
    )
    cursor = fields.String(required=True, metadata={"description": "A log that begins with it goes on behind this."})
    end = fields.String(metadata={"description": "In the last object only: done, time, drain or error."})
    status = fields.String(metadata={"description": "In the last object only: of the task."})


class WorkerAnswer(Answer):
    worker_id = fields.String(required=True)
    dispatcher_id = fields.String(required=True)
    mode = fields.String(required=True)
    host = fields.String(required=True)
    pid = fields.Integer(required=True)
    slots = fields.Integer(required=True)
    busy = fields.Integer(required=True)
    draining = fields.Boolean(required=True)
    python = fields.String(required=True)
    dill = fields.String(required=True)
    joined_ms = fields.Integer(required=True)


class WorkerDraining(Answer):
    worker_id = fields.String(required=True)
    draining = fields.Boolean(required=True)


class DispatcherAnswer(Answer):
    dispatcher_id = fields.String(required=True)
    mode = fields.String(required=True)
    host = fields.String(required=True)
    pid = fields.Integer(required=True)
    started_ms = fields.Integer(required=True)
    address = fields.String(required=True, metadata={"description": 'Where workers connect to; "" where they can\'t.'})


class FleetAnswer(Answer):
    dispatchers = fields.List(fields.Nested(DispatcherAnswer), required=True)
    workers = fields.List(fields.Nested(WorkerAnswer), required=True)


class HealthAnswer(Answer):
    status = fields.String(required=True)


class ReadyAnswer(Answer):
    ready = fields.Boolean(required=True)
    store = fields.String(required=True)
    queued = fields.Integer(required=True)
    dispatchers = fields.Integer(required=True)
    slots = fields.Integer(required=True)
    ended = fields.Integer(
        required=True, metadata={"description": "How many tasks have ended since the store is there."}
    )


class RootAnswer(Answer):
    message = fields.String(required=True)
    version = fields.String(required=True)
    docs = fields.String(required=True)
    openapi = fields.String(required=True)
