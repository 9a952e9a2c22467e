"""Runs a testScript: what the framework lets a script see, and no more."""

import contextlib
import os
import re
import unittest
from collections.abc import Iterator
from typing import Any

from errors import RequestedAssertionFailed
from log import Log
from machine import Machine, retry


class Assertions(unittest.TestCase):
    """The framework's `t`."""

    failureException = RequestedAssertionFailed
    maxDiff = None


def names(machines: list[Machine], log: Log) -> dict[str, Any]:
    """The globals of a script."""

    def start_all() -> None:
        for machine in machines:
            machine.start()

    def join_all() -> None:
        for machine in machines:
            machine.wait_for_shutdown()

    @contextlib.contextmanager
    def subtest(name: str) -> Iterator[None]:
        with log.nested(f"subtest: {name}"):
            yield

    by_name = {re.sub(r"^[^A-Za-z_]|[^A-Za-z0-9_]", "_", machine.name): machine for machine in machines}
    if len(machines) == 1:
        by_name["machine"] = machines[0]
    framework = {"start_all": start_all, "join_all": join_all, "subtest": subtest, "retry": retry, "log": log}
    return framework | {"os": os, "t": Assertions()} | by_name


def run(text: str, machines: list[Machine], log: Log) -> None:
    """Runs a script to its end, then takes its machines away. Raises whatever it raises."""
    try:
        exec(compile(text, "testScript", "exec"), names(machines, log))
    except BaseException:
        for machine in machines:
            with contextlib.suppress(Exception):
                if machine.is_up():
                    log.log(machine.run("timeout 10 journalctl -b --no-pager -n 60")[1])
        raise
    finally:
        for machine in machines:
            machine.release()
