# `handover pid1` as process 1 of a container: namespaces of its own, no systemd in it, and the same promises.
{ pkgs, ... }:
{
  name = "handover-container";

  nodes.machine =
    { lib, ... }:
    {
      environment.systemPackages = [ pkgs.handover ];
      # The units as a container image has them.
      environment.etc."box/keeper.socket".text = ''
        [Socket]
        ListenStream=7070
        FileDescriptorName=keeper
      '';
      environment.etc."box/keeper.service".text = ''
        [Service]
        Type=notify
        NotifyAccess=main
        ExecStart=${pkgs.handover-samples}/bin/keeper
        ExecReload=${lib.getExe pkgs.handover} reload
        Restart=always
        RestartSec=100ms
        FileDescriptorStoreMax=512
        [Install]
        WantedBy=multi-user.target
      '';
      systemd.services.box = {
        wantedBy = [ "multi-user.target" ];
        serviceConfig = {
          ExecStart = "${lib.getExe' pkgs.util-linux "unshare"} --pid --fork --kill-child --mount-proc --uts --ipc ${lib.getExe pkgs.handover} pid1 --runtime /run/box /etc/box";
          RuntimeDirectory = "box";
          KillMode = "mixed";
        };
      };
      systemd.services.clients = import ./clients.nix {
        inherit pkgs;
        words = "sessions 127.0.0.1:7070";
      };
    };

  testScript = builtins.readFile ./words.py + ''
    def inside(words: str) -> str:
        """What the stand-in in the container answers."""
        return machine.succeed(f"timeout 300 handover {words}").strip()


    ctl = "ctl --standin /run/box"
    start_all()
    machine.wait_for_unit("box.service")
    machine.wait_for_open_port(7070)
    start_clients()
    old = inside(f"{ctl} show -P MainPID keeper")

    with subtest("it is process 1, and its services are its children"):
        # unshare(1) is not in the container; what it started is.
        unshare = main_pid("box.service")
        first = machine.succeed(f"cat /proc/{unshare}/task/{unshare}/children").strip()
        machine.succeed(f"grep -E '^NSpid:.*\\s1$' /proc/{first}/status")

    for _ in range(3):
        told = inside("upgrade --standin /run/box keeper")
        t.assertIn(f"keeper.service: {old} -> ", told)
        old = inside(f"{ctl} show -P MainPID keeper")
        clients_go_on()

    with subtest("kill -9"):
        inside(f"{ctl} kill -s KILL --kill-whom=main keeper")
        clients_go_on()
        t.assertNotEqual(inside(f"{ctl} show -P MainPID keeper"), old)

    with subtest("a restart"):
        inside(f"{ctl} restart keeper")
        clients_go_on()

    nothing_was_lost()
    with subtest("a container that is told to stop ends well"):
        machine.succeed(f"kill -TERM {first}")
        machine.wait_until_fails("systemctl is-active box.service", timeout=300)
        machine.require_unit_state("box.service", "inactive")
  '';
}
