"""A machine as a script sees it: the methods that every kind of machine has in NixOS's framework, under their
names, with their arguments and meaning. What a machine is made of is for the subclasses to say.

A method that is not here raises `MachineError`: a script is never run with less than it wants. Retries come
every 0.1 s, where the framework's come every second.
"""

import base64
import contextlib
import re
import shlex
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn

from errors import MachineError, RequestedAssertionFailed
from log import Log

PAUSE = 0.1


def retry(attempt: Callable[[bool], bool], timeout: float = 900) -> None:
    """Calls `attempt` until it is true; it is told whether this is its last time."""
    begin = time.monotonic()
    while time.monotonic() - begin < timeout:
        if attempt(False):
            return
        time.sleep(PAUSE)
    if not attempt(True):
        raise RequestedAssertionFailed(f"action timed out after {timeout} seconds")


class Machine(ABC):
    """One machine, not started yet."""

    def __init__(self, name: str, log: Log, out_dir: Path) -> None:
        self.name = name
        self.logger = log
        self.out_dir = out_dir

    def __getattr__(self, name: str) -> NoReturn:
        raise MachineError(f"{self.name}: this driver has no method {name!r}; it has those of every NixOS machine")

    @abstractmethod
    def start(self) -> None:
        """Boots it, if it is not up."""

    @abstractmethod
    def is_up(self) -> bool:
        """Whether it was started and has not ended."""

    @abstractmethod
    def wait_for_shutdown(self) -> None:
        """Waits until it has powered itself off, or rebooted: it can then be started again."""

    @abstractmethod
    def release(self) -> None:
        """Takes all of it away."""

    @abstractmethod
    def run(self, command: str) -> tuple[int, str]:
        """Runs a line of bash(1) in it; exit status and standard output."""

    # ---- commands

    def execute(
        self, command: str, check_return: bool = True, check_output: bool = True, timeout: int | None = 900
    ) -> tuple[int, str]:
        """Exit status and output; -1 or -2 where the script does not want them."""
        self.start()
        patience = "" if timeout is None else f"timeout {timeout} "
        try:
            status, output = self.run(f"{patience}bash -c {shlex.quote(f'set -euo pipefail; {command}')}")
        except MachineError:
            # A command that takes the machine away is run like this.
            if check_return:
                raise
            status, output = -1, ""
        if not check_output:
            return -2, ""
        return (status if check_return else -1), output

    def succeed(self, *commands: str, timeout: int | None = None) -> str:
        """The output of commands that must all succeed."""
        return "".join(self._expect(command, True, timeout) for command in commands)

    def fail(self, *commands: str, timeout: int | None = None) -> str:
        """The output of commands that must all fail."""
        return "".join(self._expect(command, False, timeout) for command in commands)

    def _expect(self, command: str, success: bool, timeout: int | None) -> str:
        with self.nested(f"must {'succeed' if success else 'fail'}: {command}"):
            status, output = self.execute(command, timeout=timeout)
        if (status == 0) != success:
            self.log(f"output: {output}")
            raise RequestedAssertionFailed(f"command `{command}` ended with exit status {status}")
        return output

    def wait_until_succeeds(self, command: str, timeout: int = 900) -> str:
        """Repeats a command until it succeeds; its output."""
        return self._repeat(command, lambda status: status == 0, timeout)

    def wait_until_fails(self, command: str, timeout: int = 900) -> str:
        """Repeats a command until it fails; its output."""
        return self._repeat(command, lambda status: status != 0, timeout)

    def _repeat(self, command: str, ends: Callable[[int], bool], timeout: int) -> str:
        output = ""

        def attempt(_last: bool) -> bool:
            nonlocal output
            status, output = self.execute(command, timeout=timeout)
            return ends(status)

        with self.nested(f"repeating: {command}"):
            retry(attempt, timeout)
        return output

    def sleep(self, secs: int) -> None:
        """Waits in the machine's own time."""
        self.succeed(f"sleep {secs}")

    # ---- units

    def systemctl(self, q: str, user: str | None = None) -> tuple[int, str]:
        """systemctl(1), of the system or of a user's own manager."""
        if user is None:
            return self.execute(f"systemctl {q}")
        inner = f"XDG_RUNTIME_DIR=/run/user/`id -u` systemctl --user {q}"
        return self.execute(f"su -l {user} --shell /bin/sh -c {shlex.quote(inner)}")

    def start_job(self, jobname: str, user: str | None = None) -> tuple[int, str]:
        """Starts a unit."""
        return self.systemctl(f"start {jobname}", user)

    def stop_job(self, jobname: str, user: str | None = None) -> tuple[int, str]:
        """Stops a unit."""
        return self.systemctl(f"stop {jobname}", user)

    def get_unit_info(self, unit: str, user: str | None = None) -> dict[str, str]:
        """All properties of a unit."""
        status, text = self.systemctl(f'--no-pager show "{unit}"', user)
        if status != 0:
            raise RequestedAssertionFailed(f"systemctl show {unit} ended with exit status {status}")
        return dict(line.split("=", 1) for line in text.splitlines() if re.match("[^=]+=", line))

    def get_unit_property(self, unit: str, property: str, user: str | None = None) -> str:
        """One property of a unit."""
        status, text = self.systemctl(f'--no-pager show "{unit}" --property="{property}"', user)
        name, found, value = text.rstrip("\n").partition("=")
        if status != 0 or not found or name != property:
            raise RequestedAssertionFailed(f"{unit} has no property {property}: exit status {status}, {text!r}")
        return value

    def require_unit_state(self, unit: str, require_state: str = "active") -> None:
        """The state of a unit must be this one now."""
        state = self.get_unit_info(unit)["ActiveState"]
        if state != require_state:
            raise RequestedAssertionFailed(f"{unit} is {state}, not {require_state}")

    def wait_for_unit(self, unit: str, user: str | None = None, timeout: int = 900) -> None:
        """Waits until a unit is active; one that has failed, or that nobody starts, fails this."""

        def attempt(_last: bool) -> bool:
            state = self.get_unit_property(unit, "ActiveState", user)
            idle = state == "inactive" and "No jobs" in self.systemctl("list-jobs --full 2>&1", user)[1]
            if state == "failed" or (idle and self.get_unit_property(unit, "ActiveState", user) == state):
                raise RequestedAssertionFailed(f"{unit} is {state}, and will not be active")
            return state == "active"

        with self.nested(f"waiting for unit {unit}"):
            retry(attempt, timeout)

    # ---- files and addresses

    def wait_for_file(self, filename: str, timeout: int = 900) -> None:
        """Waits until there is this file."""
        self.wait_until_succeeds(f"test -e {filename}", timeout)

    def wait_for_open_port(self, port: int, addr: str = "localhost", timeout: int = 900) -> None:
        """Waits until somebody listens at a TCP port."""
        self.wait_until_succeeds(f"(: < /dev/tcp/{addr}/{port}) 2> /dev/null", timeout)

    def wait_for_closed_port(self, port: int, addr: str = "localhost", timeout: int = 900) -> None:
        """Waits until nobody does."""
        self.wait_until_fails(f"(: < /dev/tcp/{addr}/{port}) 2> /dev/null", timeout)

    def wait_for_open_unix_socket(self, addr: str, is_datagram: bool = False, timeout: int = 900) -> None:
        """Waits until somebody listens at a unix socket."""
        kind = "SOCK_DGRAM" if is_datagram else "SOCK_STREAM"
        script = f"import socket; socket.socket(socket.AF_UNIX, socket.{kind}).connect({addr!r})"
        self.wait_until_succeeds(f"python3 -c {shlex.quote(script)} 2> /dev/null", timeout)

    def copy_from_host(self, source: str, target: str) -> None:
        """Copies a file of the host's into the machine, with its mode."""
        mode = oct(Path(source).stat().st_mode & 0o7777)[2:]
        self.copy_from_host_via_shell(source, target)
        self.succeed(f"chmod {mode} {shlex.quote(target)}")

    def copy_from_host_via_shell(self, source: str, target: str) -> None:
        """The same, without its mode."""
        text = base64.b64encode(Path(source).read_bytes()).decode()
        place = shlex.quote(target)
        self.succeed(f"mkdir -p $(dirname {place})", f"echo {text} | base64 -d > {place}")

    def copy_from_machine(self, source: str, target_dir: str = "") -> None:
        """Copies a file of the machine's to where results go."""
        folder = self.out_dir / target_dir
        folder.mkdir(parents=True, exist_ok=True)
        text = self.succeed(f"base64 -w 0 {shlex.quote(source)}")
        (folder / Path(source).name).write_bytes(base64.b64decode(text))

    # ---- words

    def log(self, msg: str) -> None:
        """Says something in the machine's name."""
        self.logger.log(f"{self.name}: {msg}")

    @contextlib.contextmanager
    def nested(self, msg: str, attrs: dict[str, Any] | None = None) -> Iterator[None]:
        """Says what is done, and how long it took."""
        with self.logger.nested(f"{self.name}: {msg}"):
            yield
