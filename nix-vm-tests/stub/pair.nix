# The units that the module writes for one service `web`, of these settings.
settings:
let
  pkgs = import ./. { };
  test = pkgs.testers.runNixOSTest {
    name = "pair";
    nodes.machine = {
      imports = [ ../module.nix ];
      services.handover.web = settings;
    };
    testScript = "";
  };
  files = test.machines.machine;
in
{
  socket = files."/etc/systemd/system/web.socket".text;
  service = files."/etc/systemd/system/web.service".text;
}
