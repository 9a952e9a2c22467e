# kill -9 with live connections: PID 1 holds them and what is known of each, and the next process goes on.
{ pkgs, ... }:
{
  name = "handover-kill";

  nodes.machine = {
    imports = [ ../module.nix ];
    services.handover.keeper = {
      kind = "library";
      program = "${pkgs.handover-samples}/bin/keeper";
      listen = [
        "7070"
        "/run/keeper.sock"
      ];
    };
    systemd.services.clients = import ./clients.nix {
      inherit pkgs;
      words = "sessions 127.0.0.1:7070 /run/keeper.sock";
    };
  };

  testScript = builtins.readFile ./words.py + ''
    start_all()
    machine.wait_for_unit("keeper.service")
    machine.wait_for_open_unix_socket("/run/keeper.sock")
    start_clients()

    for _ in range(5):
        old = main_pid("keeper.service")
        machine.succeed("systemctl kill -s KILL --kill-whom=main keeper.service")
        clients_go_on()
        t.assertNotEqual(main_pid("keeper.service"), old)
    t.assertEqual(machine.get_unit_property("keeper.service", "NRestarts"), "5")

    with subtest("an upgrade works after all that was"):
        machine.wait_for_unit("keeper.service")
        upgrade("keeper.service")
        clients_go_on()

    nothing_was_lost()
    is_calm("keeper.service")
  '';
}
