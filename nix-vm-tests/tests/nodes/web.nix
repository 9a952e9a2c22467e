# A machine with `web`, and clients that ask it for as long as they live.
{ pkgs, ... }:
{
  imports = [ ../../module.nix ];
  environment.systemPackages = [ pkgs.handover ];
  services.handover.web = {
    kind = "library";
    program = "${pkgs.handover-samples}/bin/web";
    listen = [ "8080" ];
  };
  systemd.services.clients = import ../clients.nix {
    inherit pkgs;
    words = "web 127.0.0.1:8080";
  };
}
