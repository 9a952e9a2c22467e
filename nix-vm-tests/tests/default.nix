# The tests, each in the form of NixOS's own framework: name -> what `pkgs.testers.runNixOSTest` makes of it.
{ pkgs }:
builtins.mapAttrs (_: file: pkgs.testers.runNixOSTest (import file)) {
  container = ./container.nix;
  failed-upgrade = ./failed-upgrade.nix;
  kill = ./kill.nix;
  next-root = ./next-root.nix;
  reboot = ./reboot.nix;
  restart = ./restart.nix;
  run = ./run.nix;
  soft-reboot = ./soft-reboot.nix;
  upgrade = ./upgrade.nix;
}
