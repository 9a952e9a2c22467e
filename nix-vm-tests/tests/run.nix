# `handover run`: a server that knows nothing of this is upgraded, and a version that is no good gets no client.
{ pkgs, ... }:
{
  name = "handover-run";

  nodes.machine = {
    imports = [ ../module.nix ];
    services.handover.site = {
      kind = "unmodified";
      program = pkgs.writeShellScript "server" ''
        if [ -e /run/bad ]; then exit 1; fi
        exec ${pkgs.python3}/bin/python3 -m http.server 8080
      '';
      listen = [ "0.0.0.0:8080" ];
      settings = {
        WorkingDirectory = "/etc/site";
        # It writes a line for each request.
        StandardError = "null";
      };
    };
    environment.etc."site/index.html".text = "hello\n";
    systemd.services.clients = import ./clients.nix {
      inherit pkgs;
      words = "any 127.0.0.1:8080";
    };
  };

  testScript = builtins.readFile ./words.py + ''
    def reload_site() -> None:
        """The runner stays; a new generation of the program serves."""
        before = machine.get_unit_property("site.service", "StatusText")
        machine.succeed("timeout 300 systemctl reload site.service")
        t.assertNotEqual(machine.get_unit_property("site.service", "StatusText"), before)


    start_all()
    machine.wait_for_unit("site.service")
    start_clients()
    runner = main_pid("site.service")

    with subtest("five upgrades"):
        for _ in range(5):
            reload_site()
            clients_go_on()
        t.assertEqual(main_pid("site.service"), runner)

    with subtest("a version that is no good"):
        machine.succeed("touch /run/bad")
        machine.fail("timeout 300 systemctl reload site.service")
        clients_go_on()
        machine.succeed("rm /run/bad")
        reload_site()
        clients_go_on()

    with subtest("kill -9 of the runner"):
        machine.succeed("systemctl kill -s KILL --kill-whom=main site.service")
        machine.wait_until_succeeds(f"test $(systemctl show -P MainPID site.service) -gt 0 -a $(systemctl show -P MainPID site.service) != {runner}", timeout=300)
        machine.wait_until_succeeds("systemctl is-active site.service", timeout=300)
        clients_go_on()
        reload_site()
        clients_go_on()

    nothing_was_lost()
  '';
}
