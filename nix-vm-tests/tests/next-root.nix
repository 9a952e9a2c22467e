# The same into another root, as image-based systems do it: what PID 1 holds goes along.
{
  name = "handover-next-root";

  nodes.machine.imports = [ ./nodes/soft-reboot.nix ];

  testScript = builtins.readFile ./words.py + ''
    start_all()
    machine.wait_for_unit("keeper.service")
    machine.wait_for_unit("multi-user.target")
    start_clients()
    old = main_pid("keeper.service")

    # The store is a file system of its own in NixOS's virtual machines.
    for folder in ["/", "/nix/store"]:
        machine.succeed(f"mkdir -p /run/nextroot{folder} && mount --bind {folder} /run/nextroot{folder}")
    machine.execute("systemctl soft-reboot --no-block")
    machine.wait_until_succeeds("test $(timeout 5 systemctl show -P SoftRebootsCount) = 1", timeout=300)
    machine.wait_until_succeeds("timeout 5 systemctl is-active keeper.service", timeout=300)
    t.assertNotEqual(main_pid("keeper.service"), old)
    clients_go_on()
    upgrade("keeper.service")
    clients_go_on()
    nothing_was_lost()
  '';
}
