"""Runs the NixOS tests of this folder where there is no NixOS, their scripts unchanged: on the machines of
the project's lab, or with --vm in QEMU, with a kernel of their own.

    nix-vm-tests/run [--vm] [--systemd V257|V262]... [--verbose] [TEST]...
    nix-vm-tests/run --list
"""

import argparse
import signal
import sys
import tempfile
import time
from pathlib import Path

import evaluate
import script
from errors import MachineError
from lab import LabMachine, make_tree
from log import Log
from machine import Machine
from vm import VmMachine

ROOT = evaluate.FOLDER.parent

# What the lab cannot do: its machines share this host's kernel.
OWN_KERNEL = {"reboot"}


def main() -> int:
    """The exit status is 1 if any test failed."""
    # Whatever ends us, machines and folders go with us.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    arguments = parse()
    tests = evaluate.tests()
    unknown = set(arguments.tests) - {test.name for test in tests}
    if unknown:
        raise MachineError(f"no test {', '.join(sorted(unknown))}")
    if arguments.list:
        print(*(test.name for test in tests), sep="\n")
        return 0
    failed = 0
    for test in tests:
        if arguments.tests and test.name not in arguments.tests:
            continue
        for systemd in arguments.systemd or ["V257", "V262"]:
            if test.name in OWN_KERNEL and not arguments.vm:
                print(f"{test.name} {systemd}: only with --vm, it needs a kernel of its own", flush=True)
            else:
                failed += not run(test, systemd, arguments)
    return 1 if failed else 0


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tests", nargs="*", metavar="TEST")
    parser.add_argument("--vm", action="store_true", help="in QEMU, with a kernel of its own")
    parser.add_argument("--systemd", action="append", choices=["V257", "V262"])
    parser.add_argument("--verbose", action="store_true", help="say what is done while it is done")
    parser.add_argument("--list", action="store_true", help="name the tests")
    parser.add_argument("--target", type=Path, default=ROOT / "target/debug", help="where cargo's programs are")
    parser.add_argument("--out", type=Path, default=Path("."), help="where files of a machine's go")
    return parser.parse_args()


def run(test: evaluate.Test, systemd: str, arguments: argparse.Namespace) -> bool:
    """Runs one test on one systemd, and says what came of it."""
    log, begin, why = Log(arguments.verbose), time.monotonic(), ""
    # A script that hangs is ended as the framework would end it.
    signal.signal(signal.SIGALRM, give_up)
    signal.alarm(test.timeout)
    with tempfile.TemporaryDirectory(prefix="handover-nix-", dir=arguments.target) as folder:
        machines = make_machines(test, systemd, arguments, Path(folder), log)
        try:
            script.run(test.script, machines, log)
        except Exception as error:
            why = f"{type(error).__name__}: {error}"
        finally:
            signal.alarm(0)
    print(f"{test.name} {systemd}: {why or 'ok'}, {time.monotonic() - begin:.1f} s", flush=True)
    if why:
        print(log.last(200), file=sys.stderr, flush=True)
    return not why


def give_up(*_: object) -> None:
    """The time of a script is up."""
    raise TimeoutError("it has taken too long")


def make_machines(
    test: evaluate.Test, systemd: str, arguments: argparse.Namespace, folder: Path, log: Log
) -> list[Machine]:
    """The machines of a test, not started yet, their files below `folder`."""
    machines: list[Machine] = []
    for name, files in test.machines.items():
        tree = folder / name
        make_tree(files, arguments.target, tree)
        kind = VmMachine if arguments.vm else LabMachine
        machines.append(kind(name, log, arguments.out, arguments.target / "examples/lab", systemd, tree))
    return machines


if __name__ == "__main__":
    try:
        sys.exit(main())
    except MachineError as error:
        sys.exit(f"nix-vm-tests: {error}")
