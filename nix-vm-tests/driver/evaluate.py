"""Evaluates the tests with a real Nix, and takes what comes of it for what it is: data.

Nothing is built and no store is written: a machine without /nix will do.
"""

import json
import os
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from errors import MachineError

FOLDER = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class Test:
    """A test: its script, and the files of each of its machines."""

    name: str
    script: str
    machines: dict[str, dict[str, dict[str, str]]]
    timeout: int


def nix(*arguments: str) -> str:
    """What nix-instantiate(1) prints; `MachineError` with its words if it fails."""
    with tempfile.TemporaryDirectory(prefix="handover-nix-") as folder:
        places = {name: folder for name in ("NIX_STATE_DIR", "NIX_LOG_DIR", "NIX_CONF_DIR", "HOME")}
        environment = {**os.environ, **places}
        words = ["nix-instantiate", "--store", "dummy://", *arguments]
        done = subprocess.run(words, env=environment, capture_output=True, text=True)
    if done.returncode != 0:
        raise MachineError(f"nix-instantiate: {done.stderr[-3000:]}")
    return done.stdout


def value(expression: str) -> Any:
    """The value of an expression, all of it."""
    return json.loads(nix("--eval", "--strict", "--json", "-E", expression))


def tests() -> list[Test]:
    """The tests of this folder, evaluated against the stub of nixpkgs."""
    found = value(f"import {FOLDER}/stub/tests.nix {{ }}")
    return [
        Test(name, test["testScript"], test["machines"], test["globalTimeout"]) for name, test in found.items()
    ]
