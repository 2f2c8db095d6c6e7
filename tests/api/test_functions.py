from __future__ import annotations

import pytest

from everfaas_core.model.ids import FunctionId
from everfaas_core.ports import Store
from tests.api.driving import FUNCTION, Served, assert_error, assert_fits, encode

OPTIONS = {
    "timeout_s": 30.0,
    "max_attempts": 5,
    "retry_backoff_s": 0.5,
    "retry_on": ["ConnectionError", "mod.Busy"],
    "priority": 9,
    "result_ttl_s": 60.0,
    "python": "3.12",
}


def test_options_are_stored_and_part_of_the_identity(api: Served, store: Store) -> None:
    created = api.post("/v1/functions", {"name": "f", "payload": FUNCTION, **OPTIONS})
    assert created.status_code == 201
    assert_fits("FunctionCreated", created.json())
    assert created.json()["created"] is True
    again = api.post("/v1/functions/", {"name": "f", "payload": FUNCTION, **OPTIONS})
    assert again.status_code == 201
    assert again.json() == {**created.json(), "created": False}

    function_id = created.json()["function_id"]
    found = api.get(f"/v1/functions/{function_id}")
    assert_fits("FunctionAnswer", found.json())
    assert found.json()["options"] == OPTIONS
    assert found.json()["name"] == "f"
    record = store.functions([FunctionId(function_id)])[0]
    assert record is not None
    assert found.json()["payload_size_bytes"] == len(record.payload)

    other = api.post("/v1/functions", {"name": "f", "payload": FUNCTION, **OPTIONS, "priority": 8}).json()
    plain = api.post("/v1/functions", {"name": "f", "payload": FUNCTION}).json()
    assert api.post("/v1/functions", {"name": "f", "payload": FUNCTION, "retry_on": []}).json()["created"] is False
    assert len({function_id, other["function_id"], plain["function_id"]}) == 3
    assert plain["function_id"] == api.register("f")  # v0 and v1 are one catalog


@pytest.mark.parametrize(
    ("option", "values"),
    [
        ("timeout_s", [0, -1, 0.0001, 1e300, 10**400, True, "1", None, [1]]),
        ("max_attempts", [0, 101, 1.5, 2.0, True, "3", None, 10**30]),
        ("retry_backoff_s", [-1, 86_401, "1", None]),
        ("retry_on", ["Busy", [""], ["x" * 201], ["a\nb"], [1], [None], ["x"] * 33, None, {"Busy": 1}]),
        ("priority", [-1, 10, 4.5, False, "4", None]),
        ("result_ttl_s", [0, 0.5, 1e12, "60"]),
        ("python", ["3", "3.x", "2.7", "3.12\n", "3.12.1", "", 3.12, None]),
        ("unknown", [1]),
    ],
)
def test_options_are_validated(api: Served, option: str, values: list[object]) -> None:
    for value in values:
        answer = api.post("/v1/functions", {"name": "f", "payload": FUNCTION, option: value})
        error = assert_error(answer, 422, "invalid_request")
        assert list(error["details"]["fields"]) == [option]


def test_lists_newest_first_page_by_page(api: Served) -> None:
    made = {api.register(f"f{i}", encode(lambda: None)) for i in range(7)}
    seen: list[str] = []
    query = "?limit=3"
    while True:
        page = api.get(f"/v1/functions{query}").json()
        assert_fits("FunctionList", page)
        assert len(page["functions"]) <= 3
        seen += [function["function_id"] for function in page["functions"]]
        if page["cursor"] is None:
            break
        query = f"?limit=3&cursor={page['cursor']}"
    assert len(seen) == 7
    assert set(seen) == made
    for wrong in ("limit=0", "limit=501", "limit=x", "what=1", "cursor=%00", f"cursor={'x' * 300}", "limit=1e3"):
        assert_error(api.get(f"/v1/functions?{wrong}"), 422, "invalid_request")
