"""Functions in a module: `dill` pickles them by reference, and the workers import this file."""

from __future__ import annotations

import time

FACTOR = 3


def double(x):
    return x * 2


def add(a, b):
    return a + b


def no_op():
    return None


def sleep_task(seconds):
    time.sleep(seconds)
    return seconds


def identity(data):
    return data


def failing_task():
    raise ValueError("This task is designed to fail")


def cpu_task(n):
    return sum(i * i for i in range(n))


def use_module_global(x):
    return x * FACTOR


def factorial(n):
    return 1 if n < 2 else n * factorial(n - 1)


class Refused(Exception):
    """An exception class of a module that client and workers share."""
