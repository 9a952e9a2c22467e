"""What this driver promises to scripts: it has all that NixOS's has for every machine, with the same arguments,
and what it lacks it says. `python3 -m unittest` runs these, and tests/nix.rs does.
"""

import ast
import inspect
import unittest
from pathlib import Path

import evaluate
import script
from errors import MachineError, RequestedAssertionFailed
from log import Log
from machine import Machine

# nixos/lib/test-driver of nixpkgs: the methods of `BaseMachine`, with their arguments.
FRAMEWORK = """
 execute(command,check_return,check_output,timeout) succeed(commands,timeout) fail(commands,timeout)
 wait_until_succeeds(command,timeout) wait_until_fails(command,timeout) sleep(secs) systemctl(q,user)
 start_job(jobname,user) stop_job(jobname,user) get_unit_info(unit,user) get_unit_property(unit,property,user)
 require_unit_state(unit,require_state) wait_for_unit(unit,user,timeout) wait_for_file(filename,timeout)
 wait_for_open_port(port,addr,timeout) wait_for_closed_port(port,addr,timeout)
 wait_for_open_unix_socket(addr,is_datagram,timeout) copy_from_host(source,target)
 copy_from_host_via_shell(source,target) copy_from_machine(source,target_dir) log(msg) nested(msg,attrs)
 start() is_up() wait_for_shutdown()
""".split()


class Fake(Machine):
    """A machine that answers every command alike."""

    def __init__(self, status: int, output: str) -> None:
        super().__init__("fake", Log(False), Path("."))
        self.answer = (status, output)

    def start(self) -> None: ...
    def is_up(self) -> bool:
        return True

    def wait_for_shutdown(self) -> None: ...
    def release(self) -> None: ...
    def run(self, command: str) -> tuple[int, str]:
        return self.answer


class Driver(unittest.TestCase):
    def test_it_has_what_every_machine_of_the_framework_has(self) -> None:
        for method in FRAMEWORK:
            name, _, arguments = method.rstrip(")").partition("(")
            found = list(inspect.signature(getattr(Machine, name)).parameters)[1:]
            self.assertEqual(",".join(found), arguments, name)

    def test_a_method_or_a_name_that_it_lacks_fails_loudly(self) -> None:
        with self.assertRaisesRegex(MachineError, "no method 'screenshot'"):
            script.run("machine.screenshot('x')", [Fake(0, "")], Log(False))
        with self.assertRaises(NameError):
            script.run("polling_condition()", [Fake(0, "")], Log(False))

    def test_a_script_that_wants_what_is_not_so_fails(self) -> None:
        for line, status, output in [
            ("machine.succeed('x')", 1, ""),
            ("machine.fail('x')", 0, ""),
            ("machine.wait_until_succeeds('x', timeout=0)", 1, ""),
            ("machine.wait_for_unit('x')", 0, "ActiveState=failed"),
            ("machine.require_unit_state('x')", 0, "ActiveState=inactive"),
            ("machine.get_unit_property('x', 'Y')", 0, "Z=1"),
            ("t.assertEqual(1, 2)", 0, ""),
        ]:
            with self.assertRaises(RequestedAssertionFailed, msg=line):
                script.run(line, [Fake(status, output)], Log(False))

    def test_commands_run_as_the_framework_runs_them(self) -> None:
        machine = Fake(3, "said")
        self.assertEqual(machine.execute("x"), (3, "said"))
        self.assertEqual(machine.execute("x", check_return=False), (-1, "said"))
        self.assertEqual(machine.execute("x", check_output=False), (-2, ""))


class Scripts(unittest.TestCase):
    def test_they_use_only_what_every_machine_of_the_framework_has(self) -> None:
        known = {method.partition("(")[0] for method in FRAMEWORK}
        for test in evaluate.tests():
            for node in ast.walk(ast.parse(test.script)):
                if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "machine":
                    self.assertIn(node.attr, known, test.name)
