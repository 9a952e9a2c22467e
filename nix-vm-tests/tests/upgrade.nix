# Upgrades under load: no request is refused, reset, cut or late, and the unit's current settings apply.
{
  name = "handover-upgrade";

  nodes.machine = {
    imports = [ ./nodes/web.nix ];
    services.handover.web.environment.WEB_VERSION = "1";
  };

  testScript = builtins.readFile ./words.py + ''
    start_all()
    machine.wait_for_unit("web.service")
    machine.wait_for_open_port(8080)
    start_clients()

    with subtest("ten reloads in a row lose nothing"):
        for _ in range(10):
            upgrade("web.service")
            clients_go_on()

    with subtest("the unit's current settings are what the new process runs with"):
        settings("web.service", "Environment=WEB_VERSION=2", "LimitNOFILE=5000")
        upgrade("web.service")
        pid = main_pid("web.service")
        machine.succeed(f"tr '\\0' '\\n' < /proc/{pid}/environ | grep -x WEB_VERSION=2")
        machine.succeed(f"grep -E 'Max open files +5000 ' /proc/{pid}/limits")

    with subtest("a path that leads to another program, as a switch to another configuration leaves it"):
        machine.succeed("cp --dereference /etc/handover/web /var/lib/new-web", "ln -sfn /var/lib/new-web /etc/handover/web")
        upgrade("web.service")
        t.assertEqual(machine.succeed(f"readlink /proc/{main_pid('web.service')}/exe"), "/var/lib/new-web\n")

    with subtest("whoever asks is told"):
        old = main_pid("web.service")
        told = machine.succeed("handover upgrade web")
        t.assertIn(f"web.service: {old} -> {main_pid('web.service')} switched in ", told)

    clients_go_on()
    nothing_was_lost()
    is_calm("web.service")
  '';
}
