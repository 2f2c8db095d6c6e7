"""The OpenAPI document, /docs and the overview: complete, offline, without inline scripts."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import threading
from pathlib import Path
from typing import Any

import dill
import pytest

from everfaas_core import __version__
from everfaas_core.api import schemas
from everfaas_core.api.schemas import TaskItem
from everfaas_core.model.records import ClaimedTask
from tests.api.driving import CALL, Served, TinyDispatcher, eventually

METHODS = {"get", "post", "put", "delete", "patch", "head", "options", "trace"}


@pytest.fixture
def document(api: Served) -> dict[str, Any]:
    answer = api.get("/openapi.json")
    assert answer.status_code == 200
    assert answer.headers["Content-Type"] == "application/json"
    parsed: dict[str, Any] = answer.json()
    return parsed


def test_it_is_a_valid_3_1_document(document: dict[str, Any]) -> None:
    assert document["openapi"] == "3.1.0"
    assert document["info"]["title"]
    assert document["info"]["version"] == __version__
    seen = set()
    for path, item in document["paths"].items():
        assert path.startswith("/")
        for method in item.keys() & METHODS:
            operation = item[method]
            assert operation["summary"], (path, method)
            assert operation["responses"], (path, method)
            seen.add((path, method))
            parameters = [*item.get("parameters", []), *operation.get("parameters", [])]
            named = {parameter["name"] for parameter in parameters if parameter["in"] == "path"}
            assert named == set(re.findall(r"{(\w+)}", path)), path
            for parameter in parameters:
                assert "schema" in parameter
                assert parameter["in"] in ("path", "query")
            for code, response in operation["responses"].items():
                assert re.fullmatch(r"[1-5]\d\d|default", code)
                assert response["description"]
    assert len(seen) > 15


def test_every_reference_leads_somewhere(document: dict[str, Any]) -> None:
    references = re.findall(r'"\$ref": "([^"]+)"', json.dumps(document))
    assert references
    for reference in references:
        place: Any = document
        for step in reference.removeprefix("#/").split("/"):
            place = place[step]
        assert place


def test_every_route_is_in_it(api: Served, document: dict[str, Any]) -> None:
    for rule in api.app.url_map.iter_rules():
        path = re.sub(r"<(?:path:)?(\w+)>", r"{\1}", rule.rule)
        if path in ("/openapi.json", "/docs", "/assets/{name}"):
            continue
        for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}:
            assert method.lower() in document["paths"][path]


def test_it_says_what_is_validated(document: dict[str, Any]) -> None:
    """The limits in it are those of the schemas that validate."""
    parts = document["components"]["schemas"]
    function = parts["FunctionBody"]
    assert set(function["required"]) == {"name", "payload"}
    assert function["properties"]["name"]["maxLength"] == schemas.NAME_CHARS_MAX
    assert (function["properties"]["priority"]["minimum"], function["properties"]["priority"]["maximum"]) == (0, 9)
    assert function["additionalProperties"] is False
    assert set(parts["TaskItem"]["properties"]) == set(TaskItem().fields)
    assert parts["BatchBody"]["properties"]["tasks"]["maxItems"] == 10_000
    assert parts["BatchBody"]["properties"]["tasks"]["items"] == {"$ref": "#/components/schemas/TaskItem"}
    assert parts["ClassicTaskBody"]["properties"]["function_id"]["format"] == "uuid"
    assert parts["ClassicTaskBody"]["properties"]["payload"]["type"] == "string"
    submit = document["paths"]["/v1/tasks"]["post"]
    assert set(submit["requestBody"]["content"]) == {"application/json", "application/msgpack"}
    assert {"201", "400", "403", "404", "409", "413", "415", "422", "429", "503"} == set(submit["responses"])
    wait = document["paths"]["/result/{task_id}"]["get"]["parameters"]
    assert "wait" in {parameter["name"] for parameter in wait}


def test_docs_load_only_local_files(api: Served) -> None:
    page = api.get("/docs")
    assert page.status_code == 200
    assert page.headers["Content-Type"] == "text/html; charset=utf-8"
    links = re.findall(r'(?:src|href)="([^"]+)"', page.text)
    assert {"/assets/swagger-ui.css", "/assets/swagger-ui-bundle.js", "/assets/docs.js"} <= set(links)
    assert not re.findall(r"<script(?![^>]*src=)", page.text)
    for link in links:
        assert link.startswith(("/", "data:")), link
        if link.startswith("/"):
            asset = api.get(link)
            assert asset.status_code == 200
            assert asset.headers["Content-Type"].startswith(("text/css", "text/javascript"))
    assert len(api.get("/assets/swagger-ui-bundle.js").content) > 1_000_000


@pytest.mark.parametrize("name", ["README.md", "swagger-ui.LICENSE", "..%2Fapp.py", "%2e%2e/app.py", "docs.js%00", "."])
def test_only_listed_files_are_served(api: Served, name: str) -> None:
    assert api.get(f"/assets/{name}").status_code == 404


def test_the_root_depends_on_who_asks(api: Served, dispatcher: TinyDispatcher) -> None:
    for accept in (None, "*/*", "application/json"):
        answer = api.get("/", headers={"Accept": accept})
        assert answer.status_code == 200
        assert answer.json()["message"]
        assert answer.headers["Vary"] == "Accept"
    html = {"Accept": "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"}
    empty = api.get("/", headers=html)
    assert empty.headers["Content-Type"] == "text/html; charset=utf-8"
    assert "no dispatcher is running" in empty.text
    function_id = api.register("thumbnail")
    api.post("/v1/tasks:batch", {"tasks": [{"function_id": function_id, "payload": CALL}] * 31})
    dispatcher.join()
    page = api.get("/", headers=html).text
    assert "a task submitted now would run" in page
    for fact in ("thumbnail", function_id, "worker-1", "host-1", "<dd>31</dd>", 'href="/docs"'):
        assert fact in page


@pytest.mark.skipif(shutil.which("chromium") is None, reason="chromium is not installed")
def test_a_browser_shows_docs_without_a_complaint(api: Served, tmp_path: Path) -> None:
    """Chromium renders the calls, and reports no refused script, style or request."""
    command = ["chromium", "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
    command += [f"--user-data-dir={tmp_path}", "--enable-logging=stderr", "--v=0", "--virtual-time-budget=15000"]
    shown = subprocess.run([*command, "--dump-dom", api.url + "/docs"], capture_output=True, timeout=100, text=True)
    assert "/register_function" in shown.stdout
    assert "/v1/tasks:batch" in shown.stdout
    complaints = [line for line in shown.stderr.splitlines() if "CONSOLE" in line]
    assert not complaints


def test_the_client_of_the_docs_works(
    api: Served, dispatcher: TinyDispatcher, capsys: pytest.CaptureFixture[str]
) -> None:
    """The Python in docs/api.md, as it stands there, against a slot of its own."""
    text = (Path(__file__).parents[2] / "docs" / "api.md").read_text()
    code = re.search(r"```python\n(.*?)```\n\n```\n(.*?)```", text, re.DOTALL)
    assert code is not None

    def slot() -> None:
        claimed: list[ClaimedTask] = []
        eventually(lambda: bool(claimed) or bool(claimed.extend(dispatcher.claim(1))))
        (record,) = dispatcher.store.functions([claimed[0].function_id])
        assert record is not None
        args, kwargs = dill.loads(claimed[0].payload)
        dispatcher.start(*claimed)
        dispatcher.finish(*claimed, result=dill.dumps(dill.loads(record.payload)(*args, **kwargs)))

    thread = threading.Thread(target=slot)
    thread.start()
    exec(compile(code[1].replace("http://127.0.0.1:8000", api.url), "docs/api.md", "exec"), {"__name__": "__main__"})
    thread.join(30)
    assert capsys.readouterr().out == code[2]
