# The words that the scripts of these tests are made of; `machine` and `t` are the framework's.


def main_pid(unit: str) -> str:
    """The main process of a service, as PID 1 knows it."""
    return machine.get_unit_property(unit, "MainPID")


def upgrade(unit: str) -> None:
    """Another process is the main one, and the unit has never left `active`."""
    before = (main_pid(unit), machine.get_unit_property(unit, "InvocationID"))
    machine.succeed(f"timeout 300 systemctl reload {unit}")
    after = (main_pid(unit), machine.get_unit_property(unit, "InvocationID"))
    t.assertNotEqual(after[0], before[0])
    t.assertEqual(after[1], before[1])


def start_clients(unit: str = "clients.service") -> None:
    """Returns once each client has had an answer."""
    machine.succeed(f"systemctl start {unit}")


def clients_go_on(unit: str = "clients.service") -> None:
    """Each client has had two more answers, or this fails."""
    machine.succeed(f"timeout 300 systemctl reload {unit}")


def nothing_was_lost(unit: str = "clients.service") -> None:
    """Clients that have lost anything end with 1: their unit is then `failed`."""
    machine.succeed(f"systemctl stop {unit}")
    machine.require_unit_state(unit, "inactive")


def settings(unit: str, *directives: str) -> None:
    """Has PID 1 read these directives of the section [Service], in place of those before."""
    folder = f"/run/systemd/system/{unit}.d"
    text = "\\n".join(["[Service]", *directives])
    machine.succeed(f"mkdir -p {folder} && printf '{text}\\n' > {folder}/test.conf && systemctl daemon-reload")


def is_calm(unit: str) -> None:
    """PID 1 has seen nothing to complain of."""
    machine.fail(f"journalctl -b -u {unit} | grep -E 'which is not our child|panicked|timed out'")
