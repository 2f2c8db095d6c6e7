"""What requests must look like: they are validated by these, and the OpenAPI document is generated from them."""

from __future__ import annotations

from typing import Any, Final

from marshmallow import EXCLUDE, RAISE, Schema, fields, validate

from everfaas_core.api.fields import Blob, Flag, Id, Items, Seconds, Text, Whole
from everfaas_core.api.settings import BATCH_TASKS_MAX, PAGE_MAX, WAIT_IDS_MAX
from everfaas_core.model.records import PRIORITIES
from everfaas_core.model.states import Cause, Status

NAME_CHARS_MAX: Final = 200
TAGS_MAX: Final = 32
TAG_CHARS_MAX: Final = 100
ATTEMPTS_MAX: Final = 100
RETRY_ON_MAX: Final = 32
BACKOFF_S_MAX: Final = 86_400.0
DURATION_S_MAX: Final = 366 * 86_400.0
DURATION_S_MIN: Final = 0.001
WAIT_S_MAX: Final = 86_400.0  # what may be asked for; the server shortens it to its own maximum
PAGE_DEFAULT: Final = 50
STREAM_S_DEFAULT: Final = 60.0
STREAM_RESULTS_MAX: Final = 10_000_000
LOG_ATTEMPT_MAX: Final = 999_999_999

_PAYLOAD = {"description": "Base64 text of a pickle made by dill; in msgpack, also the raw bytes."}


def _retry_on() -> fields.List[Any]:
    description = "Names of exceptions that are tried again too, such as ConnectionError or mod.Busy."
    return fields.List(
        Text(max_chars=NAME_CHARS_MAX),
        validate=validate.Length(max=RETRY_ON_MAX),
        metadata={"description": description},
    )


class ClassicSchema(Schema):
    """v0 ignores fields that it does not know."""

    class Meta:
        unknown = EXCLUDE


class StrictSchema(Schema):
    """v1 refuses fields that it does not know, so that a misspelt option is not a silent one."""

    class Meta:
        unknown = RAISE


class ClassicFunctionBody(ClassicSchema):
    name = Text(max_chars=NAME_CHARS_MAX, required=True)
    payload = Blob(required=True, metadata=_PAYLOAD)


class ClassicTaskBody(ClassicSchema):
    function_id = Id(required=True)
    payload = Blob(required=True, metadata=_PAYLOAD)


class ResultQuery(ClassicSchema):
    wait = fields.Float(
        validate=validate.Range(0, WAIT_S_MAX),
        load_default=0.0,
        metadata={"description": "Seconds to wait for the task to end; the server shortens long ones."},
    )


class FunctionBody(StrictSchema):
    name = Text(max_chars=NAME_CHARS_MAX, required=True)
    payload = Blob(required=True, metadata=_PAYLOAD)
    timeout_s = Seconds(DURATION_S_MIN, DURATION_S_MAX, metadata={"description": "Longest run of one attempt."})
    max_attempts = Whole(1, ATTEMPTS_MAX, metadata={"description": "Attempts that system failures may use up."})
    retry_backoff_s = Seconds(
        0, BACKOFF_S_MAX, metadata={"description": "Before the second attempt; doubles each time."}
    )
    retry_on = _retry_on()
    priority = Whole(0, PRIORITIES - 1, metadata={"description": "9 is the most urgent."})
    result_ttl_s = Seconds(1, DURATION_S_MAX, metadata={"description": "How long a finished task is kept."})
    python = fields.String(
        validate=validate.Regexp(r"3\.\d{1,2}\Z"),
        metadata={"description": "Minor version that made the payload, such as 3.12."},
    )


class TaskItem(StrictSchema):
    """One task of a batch. Batches are checked by one pass over these fields, not by loading this schema."""

    function_id = Id(required=True)
    payload = Blob(required=True, metadata=_PAYLOAD)
    priority = Whole(0, PRIORITIES - 1)
    delay_s = Seconds(0, DURATION_S_MAX, metadata={"description": "Do not start before so many seconds."})
    timeout_s = Seconds(DURATION_S_MIN, DURATION_S_MAX, metadata={"description": "Longest run of one attempt."})
    deadline_s = Seconds(DURATION_S_MIN, DURATION_S_MAX, metadata={"description": "From now; by then it has ended."})
    max_attempts = Whole(1, ATTEMPTS_MAX)
    retry_backoff_s = Seconds(0, BACKOFF_S_MAX)
    retry_on = _retry_on()
    result_ttl_s = Seconds(1, DURATION_S_MAX)
    idempotency_key = Text(
        max_chars=NAME_CHARS_MAX,
        metadata={
            "description": "A repeated submit with the same key, function and payload answers with the first task."
        },
    )
    group = Text(max_chars=NAME_CHARS_MAX)
    tags = fields.List(Text(max_chars=TAG_CHARS_MAX), validate=validate.Length(max=TAGS_MAX))


class TaskBody(TaskItem):
    """A task, and how long to wait for its result."""

    wait_s = Seconds(
        0,
        WAIT_S_MAX,
        load_default=0.0,
        metadata={"description": "Wait so long for the end; then the answer has status and result."},
    )


class BatchBody(StrictSchema):
    tasks = Items(BATCH_TASKS_MAX, {"$ref": "#/components/schemas/TaskItem"}, required=True)


class WaitBody(StrictSchema):
    task_ids = Items(WAIT_IDS_MAX, {"type": "string", "format": "uuid"}, required=True)
    wait_s = Seconds(0, WAIT_S_MAX, load_default=0.0)
    results = Flag(load_default=True, metadata={"description": "False: statuses only."})


class CancelBody(StrictSchema):
    task_ids = Items(WAIT_IDS_MAX, {"type": "string", "format": "uuid"}, required=True)
    running = Flag(load_default=True, metadata={"description": "False: leave alone those that run."})


class PageQuery(StrictSchema):
    cursor = Text(max_chars=NAME_CHARS_MAX, metadata={"description": "From the page before."})
    limit = fields.Integer(validate=validate.Range(1, PAGE_MAX), load_default=PAGE_DEFAULT)


class TaskQuery(PageQuery):
    status = fields.String(validate=validate.OneOf([str(status) for status in Status]))
    cause = fields.String(
        validate=validate.OneOf([str(cause) for cause in Cause]), metadata={"description": "Why it ended."}
    )
    dead = fields.String(
        validate=validate.OneOf(["true", "false"]),
        metadata={"description": "true: dead letters only, which system failures have cost their last attempt."},
    )
    function = Id()
    group = Text(max_chars=NAME_CHARS_MAX)
    tag = Text(max_chars=TAG_CHARS_MAX)


class GroupQuery(StrictSchema):
    cursor = Text(
        max_chars=NAME_CHARS_MAX,
        metadata={"description": "From any object of a stream before: begin behind it. Without: with the first."},
    )
    wait_s = fields.Float(
        validate=validate.Range(0, WAIT_S_MAX),
        load_default=STREAM_S_DEFAULT,
        metadata={"description": "How long to wait for further results; the server shortens long times."},
    )
    until = fields.String(
        validate=validate.OneOf(["done", "time"]),
        load_default="time",
        metadata={"description": "done: end as soon as no task of the group is left that has not ended."},
    )
    results = fields.String(
        validate=validate.OneOf(["true", "false"]),
        load_default="true",
        metadata={"description": "false: ids and statuses only."},
    )
    limit = fields.Integer(
        validate=validate.Range(1, STREAM_RESULTS_MAX), metadata={"description": "End after so many results."}
    )


class LogQuery(StrictSchema):
    cursor = Text(
        max_chars=NAME_CHARS_MAX,
        metadata={"description": "From any object of a log before: begin behind it. Without: with what is kept."},
    )
    follow = fields.String(
        validate=validate.OneOf(["1", "0", "true", "false"]),
        load_default="false",
        metadata={"description": "true: go on as the task prints, until it has ended."},
    )
    wait_s = fields.Float(
        validate=validate.Range(0, WAIT_S_MAX),
        load_default=STREAM_S_DEFAULT,
        metadata={"description": "With follow: how long at the most; the server shortens long times."},
    )
    attempt = fields.Integer(
        validate=validate.Range(1, LOG_ATTEMPT_MAX), metadata={"description": "Only what this attempt has printed."}
    )


class EmptyBody(StrictSchema):
    """Nothing, or an empty object."""
