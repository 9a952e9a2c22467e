# `systemctl soft-reboot`: every process goes but PID 1, the clients, and the framework's shell; sessions go on.
{
  name = "handover-soft-reboot";

  nodes.machine.imports = [ ./nodes/soft-reboot.nix ];

  testScript = builtins.readFile ./words.py + ''
    start_all()
    machine.wait_for_unit("keeper.service")
    machine.wait_for_unit("multi-user.target")
    start_clients()
    old, clients = main_pid("keeper.service"), main_pid("clients.service")

    for count in ["1", "2"]:
        machine.execute("systemctl soft-reboot --no-block")
        machine.wait_until_succeeds(f"test $(timeout 5 systemctl show -P SoftRebootsCount) = {count}", timeout=300)
        machine.wait_until_succeeds("timeout 5 systemctl is-active keeper.service", timeout=300)
        t.assertNotEqual(main_pid("keeper.service"), old)
        old = main_pid("keeper.service")
        clients_go_on()
    t.assertEqual(main_pid("clients.service"), clients)

    with subtest("an upgrade works after all that was"):
        machine.wait_for_unit("multi-user.target")
        upgrade("keeper.service")
        clients_go_on()

    nothing_was_lost()
    is_calm("keeper.service")
  '';
}
