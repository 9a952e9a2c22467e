# `systemctl restart`: clients in the queue wait, connections go on, HTTP's keep-alive ones among them.
{ pkgs, ... }:
{
  name = "handover-restart";

  nodes.machine = {
    imports = [ ../module.nix ];
    services.handover.web = {
      kind = "library";
      program = "${pkgs.handover-samples}/bin/web";
      listen = [ "8080" ];
    };
    services.handover.keeper = {
      kind = "library";
      program = "${pkgs.handover-samples}/bin/keeper";
      listen = [ "7070" ];
    };
    systemd.services.visitors = import ./clients.nix {
      inherit pkgs;
      words = "web 127.0.0.1:8080";
    };
    systemd.services.sessions = import ./clients.nix {
      inherit pkgs;
      words = "sessions 127.0.0.1:7070";
    };
  };

  testScript = builtins.readFile ./words.py + ''
    start_all()
    both = {"web.service": "visitors.service", "keeper.service": "sessions.service"}
    for unit, clients in both.items():
        machine.wait_for_unit(unit)
        start_clients(clients)

    for _ in range(3):
        for unit, clients in both.items():
            old = main_pid(unit)
            machine.succeed(f"timeout 300 systemctl restart {unit}")
            t.assertNotEqual(main_pid(unit), old)
            clients_go_on(clients)

    for unit, clients in both.items():
        upgrade(unit)
        clients_go_on(clients)
        nothing_was_lost(clients)
        is_calm(unit)
  '';
}
