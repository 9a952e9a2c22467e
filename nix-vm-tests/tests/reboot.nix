# A machine that boots serves, and is upgraded: nothing of this needs a hand. What PID 1 held is gone.
{
  name = "handover-reboot";

  nodes.machine.imports = [ ./nodes/web.nix ];

  testScript = builtins.readFile ./words.py + ''
    boots: set[str] = set()
    for _ in range(2):
        machine.start()
        machine.wait_for_unit("web.service")
        boots.add(machine.succeed("cat /proc/sys/kernel/random/boot_id"))
        start_clients()
        upgrade("web.service")
        clients_go_on()
        nothing_was_lost()
        is_calm("web.service")
        machine.execute("systemctl reboot --no-block", check_return=False)
        machine.wait_for_shutdown()
    t.assertEqual(len(boots), 2)
  '';
}
