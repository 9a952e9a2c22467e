"""A machine of the project's own lab: a real systemd as PID 1 of namespaces over a tree of Debian's, tests/lab.

It has no kernel of its own: one that reboots has ended, and boots anew with the files that it had at first.
"""

import os
import shutil
import subprocess
from pathlib import Path

from errors import MachineError
from log import Log
from machine import Machine


class LabMachine(Machine):
    """A machine whose supervisor is `lab boot`: it goes with us, however we go."""

    def __init__(self, name: str, log: Log, out_dir: Path, lab: Path, systemd: str, tree: Path) -> None:
        super().__init__(name, log, out_dir)
        self._lab, self._systemd, self._tree = lab, systemd, tree
        self._supervisor: subprocess.Popen[str] | None = None
        self._pid = ""

    def start(self) -> None:
        if self.is_up():
            return
        with self.nested(f"boot {self._systemd}"):
            words = [str(self._lab), "boot", self._systemd, "--tree", str(self._tree)]
            supervisor = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            self._supervisor = supervisor
            assert supervisor.stdout is not None
            said = supervisor.stdout.readline().split()
            if said[:1] != ["ready"]:
                raise MachineError(f"{self._systemd} did not boot: {said}, {supervisor.wait()}")
            self._pid = said[1]

    def is_up(self) -> bool:
        return self._supervisor is not None and self._supervisor.poll() is None

    def wait_for_shutdown(self) -> None:
        with self.nested("waiting for its end"):
            if self._supervisor is not None:
                self._supervisor.wait()

    def release(self) -> None:
        if self._supervisor is not None:
            assert self._supervisor.stdin is not None
            self._supervisor.stdin.close()
            self._supervisor.wait()

    def run(self, command: str) -> tuple[int, str]:
        words = [str(self._lab), "exec", self._pid, "--", "bash", "-c", command]
        done = subprocess.run(words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        for line in done.stderr.decode(errors="replace").splitlines():
            self.log(f"# {line}")
        return done.returncode, done.stdout.decode(errors="replace")


def make_tree(files: dict[str, dict[str, str]], built: Path, tree: Path) -> None:
    """Makes the files of a machine below `tree`, those that cargo has built from `built`."""
    for path, file in files.items():
        place = tree / path.lstrip("/")
        place.parent.mkdir(parents=True, exist_ok=True)
        match file:
            case {"link": target}:
                place.symlink_to(target)
            case {"built": program}:
                _hold(built / program, place)
            case {"text": text, "mode": mode}:
                place.write_text(text)
                place.chmod(int(mode, 8))
            case _:
                raise MachineError(f"{path}: nobody knows how to make {file}")


def _hold(program: Path, place: Path) -> None:
    """The same file under another name, or a copy of it where that cannot be."""
    try:
        os.link(program, place)
    except OSError:
        shutil.copy2(program, place)
