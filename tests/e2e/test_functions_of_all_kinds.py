"""What people send: arguments and functions of every kind, and every way in which they go wrong."""

from __future__ import annotations

import time

import dill
import pytest

from . import functions
from .classic import Classic, deserialize, serialize


def value(client: Classic, function, *args, **kwargs):
    status, result = client.call(function, *args, **kwargs)
    assert status == "COMPLETED", result
    return result


def failure(client: Classic, function, *args, **kwargs):
    status, result = client.call(function, *args, **kwargs)
    assert status == "FAILED"
    return result


class TestArguments:
    def test_keywords_only(self, client):
        assert value(client, functions.add, a=1, b=2) == 3

    def test_keyword_only_parameters(self, client):
        def function(*, a, b=5):
            return a, b

        assert value(client, function, a=1) == (1, 5)

    def test_no_arguments_and_none(self, client):
        assert value(client, functions.no_op) is None

    def test_missing_arguments_are_the_callers_error(self, client):
        error = failure(client, functions.add, 1)
        assert type(error) is TypeError
        assert "missing 1 required positional argument" in str(error)

    def test_arguments_that_are_no_tuple_are_explained(self, client):
        body = client.wait(client.execute_payload(client.register(functions.double), serialize((1, {}))))
        assert body["status"] == "FAILED"
        assert str(deserialize(body["result"])).startswith("WorkerFailure")
        assert "an int and not a tuple" in str(deserialize(body["result"]))

    def test_keyword_names_that_are_no_strings(self, client):
        body = client.wait(client.execute_payload(client.register(functions.double), serialize(((), {1: 2}))))
        assert body["status"] == "FAILED"
        assert type(deserialize(body["result"])) is TypeError

    def test_numpy(self, client):
        numpy = pytest.importorskip("numpy")

        def function(matrix):
            return matrix @ matrix.T

        matrix = numpy.arange(10_000, dtype=float).reshape(100, 100)
        assert numpy.array_equal(value(client, function, matrix), matrix @ matrix.T)


class TestFunctions:
    def test_a_closure(self, client):
        factor = 7

        def function(x):
            return x * factor

        assert value(client, function, 6) == 42

    def test_a_lambda(self, client):
        assert value(client, lambda x: x + 1, 1) == 2

    def test_recursion_in_a_module(self, client):
        assert value(client, functions.factorial, 20) == 2432902008176640000

    def test_recursion_by_value(self, client):
        def fibonacci(n):
            return n if n < 2 else fibonacci(n - 1) + fibonacci(n - 2)

        assert value(client, fibonacci, 15) == 610

    def test_nested_functions(self, client):
        def outer(x):
            def inner(y):
                return y * 2

            return inner(inner(x))

        assert value(client, outer, 3) == 12

    def test_imports_inside(self, client):
        def function(text):
            import hashlib
            import json

            return hashlib.sha256(json.dumps(text).encode()).hexdigest()[:8]

        assert value(client, function, "x") == "ba2df490"

    def test_module_globals(self, client):
        assert value(client, functions.use_module_global, 5) == 15

    def test_defaults_and_annotations_travel(self, client):
        def function(a: int, b: list[int] = [1, 2], *, c: str = "c") -> tuple:  # noqa: B006 - on purpose
            return a, b, c, function.__name__

        assert value(client, function, 0) == (0, [1, 2], "c", "function")

    def test_a_builtin_and_a_class(self, client):
        assert value(client, pow, 2, 10) == 1024
        assert value(client, complex, 1, 2) == 1 + 2j

    def test_a_result_that_is_a_function(self, client):
        assert value(client, lambda n: lambda x: x + n, 4)(1) == 5


class TestErrors:
    def test_an_exception_class_of_the_client(self, client):
        class Overdrawn(Exception):
            def __init__(self, message, amount):
                super().__init__(message, amount)
                self.amount = amount

        def function():
            raise Overdrawn("too much", 12)

        error = failure(client, function)
        assert type(error).__name__ == "Overdrawn"
        assert (error.args, error.amount) == (("too much", 12), 12)

    def test_an_exception_class_of_a_shared_module(self, client):
        def function():
            from tests.e2e.functions import Refused

            raise Refused("no")

        assert type(failure(client, function)) is functions.Refused

    def test_an_unserializable_result(self, client):
        def function():
            import sqlite3

            return sqlite3.connect(":memory:")

        error = failure(client, function)
        assert str(error).startswith("WorkerFailure")
        assert "sqlite3.Connection" in str(error)

    def test_a_generator_is_no_result(self, client):
        def function():
            yield 1

        assert "generator" in str(failure(client, function))

    def test_an_unserializable_exception(self, client):
        def function():
            import sqlite3

            raise ValueError("holds a connection", sqlite3.connect(":memory:"))

        error = failure(client, function)
        assert str(error).startswith("WorkerFailure")
        assert "ValueError" in str(error)
        assert "holds a connection" in str(error)

    def test_an_exception_that_the_client_could_not_rebuild(self, client):
        class Awkward(Exception):
            def __init__(self, code, text):
                super().__init__(text)
                self.code = code

        def function():
            raise Awkward(7, "made of two, shown as one")

        error = failure(client, function)
        assert "Awkward" in repr(error) + str(error)
        assert "made of two, shown as one" in str(error)

    def test_infinite_recursion(self, client):
        def function(n):
            return function(n + 1)

        assert isinstance(failure(client, function, 0), RecursionError)

    def test_sys_exit_ends_the_task_only(self, client):
        def function():
            import sys

            sys.exit(3)

        error = failure(client, function)
        assert isinstance(error, SystemExit) or str(error).startswith("WorkerFailure")
        assert value(client, functions.double, 1) == 2

    def test_os_exit_is_retried_and_dead_lettered(self, client):
        def function():
            import os

            os._exit(9)

        error = failure(client, function)
        assert str(error).startswith("WorkerFailure")
        assert "exited with status 9" in str(error)
        assert "attempt 3 of 3" in str(error)

    def test_a_segfault_costs_nobody_else_anything(self, client):
        def function():
            import ctypes

            ctypes.string_at(0)

        sleeper = client.register(functions.sleep_task)
        ids = [client.execute(sleeper, 0.5) for _ in range(2)]
        error = failure(client, function)
        assert "SIGSEGV" in str(error)
        assert [client.wait(one)["status"] for one in ids] == ["COMPLETED"] * 2

    def test_an_infinite_loop_ends_at_its_deadline(self, client):
        def function():
            while True:
                pass

        body = {"name": "loop", "payload": serialize(function), "timeout_s": 0.5}
        registered = client.session.post(client.url + "v1/functions", json=body, timeout=10)
        assert registered.status_code == 201, registered.text
        ended = client.wait(client.execute(registered.json()["function_id"]))
        assert "exceeded deadline" in str(deserialize(ended["result"]))

    def test_a_module_that_workers_lack_is_named_with_the_remedy(self, client, tmp_path, monkeypatch):
        (tmp_path / "only_here.py").write_text("def function():\n    return 1\n")
        monkeypatch.syspath_prepend(tmp_path)
        import only_here

        error = failure(client, only_here.function)
        assert str(error).startswith("WorkerFailure")
        assert "only_here" in str(error)
        assert "--path" in str(error)

    def test_a_payload_that_does_not_load_in_the_slot(self, client):
        payload = dill.dumps(functions.double).replace(b"double", b"doable")
        import codecs

        function = client.register(functions.double, payload=codecs.encode(payload, "base64").decode())
        body = client.wait(client.execute(function, 1))
        assert body["status"] == "FAILED"
        assert "doable" in str(deserialize(body["result"]))

    def test_slots_are_all_well_afterwards(self, client):
        function = client.register(functions.sleep_task)
        started = time.monotonic()
        ids = [client.execute(function, 0.2) for _ in range(8)]
        assert [client.wait(one)["status"] for one in ids] == ["COMPLETED"] * 8
        assert time.monotonic() - started < 20
