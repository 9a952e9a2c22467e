# All that a driver wants of the tests: their scripts, and the files of their machines.
{
  lib ? import ./lib.nix,
}:
builtins.mapAttrs (_: test: { inherit (test) globalTimeout machines testScript; }) (
  import ../tests { pkgs = import ./. { inherit lib; }; }
)
