# A machine with `keeper`, and with clients that no soft-reboot ends, nor the framework's own shell.
{ lib, pkgs, ... }:
{
  imports = [ ../../module.nix ];
  services.handover.keeper = {
    kind = "library";
    program = "${pkgs.handover-samples}/bin/keeper";
    listen = [ "7070" ];
    preserve = true;
  };
  systemd.services.clients = lib.mkMerge [
    (import ../clients.nix {
      inherit pkgs;
      words = "sessions 127.0.0.1:7070";
    })
    (import ../survivor.nix)
  ];
  systemd.services.backdoor = import ../survivor.nix;
}
