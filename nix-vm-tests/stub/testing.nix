# A test of NixOS's framework, as what a driver needs of it: the script, and the files of each machine.
{
  lib,
  pkgs,
  module,
}:
let
  inherit (lib) mkOption types;

  # NixOS: utils.escapeSystemdExecArgs; systemd.service(5), "Command lines".
  escape =
    word:
    builtins.replaceStrings [ "%" "$" ] [ "%%" "$$" ] (
      builtins.toJSON (if lib.isDerivation word then "${word}" else toString word)
    );

  node = {
    imports = [
      ./nixos.nix
      ./backdoor.nix
    ];
  };

  framework.options = {
    name = mkOption { type = types.str; };
    globalTimeout = mkOption {
      type = types.ints.positive;
      default = 3600;
    };
    nodes = mkOption {
      type = types.attrsOf types.anything;
      default = { };
    };
    testScript = mkOption { type = types.either types.str types.anything; };
  };

  machine =
    name: definition:
    (lib.evalModules {
      modules = [
        node
        definition
      ];
      specialArgs = {
        inherit pkgs name;
        utils.escapeSystemdExecArgs = words: lib.concatMapStringsSep " " escape words;
      };
    }).config;

  test =
    (lib.evalModules {
      modules = [
        framework
        module
      ];
      specialArgs = { inherit pkgs; };
    }).config;

  nodes = builtins.mapAttrs machine test.nodes;
  failed = config: builtins.filter (one: !one.assertion) config.assertions;
in
derivation {
  name = "vm-test-run-${test.name}";
  system = "x86_64-linux";
  builder = "nobody";
}
// {
  inherit (test) globalTimeout;
  testScript = if builtins.isFunction test.testScript then test.testScript { inherit nodes; } else test.testScript;
  machines = builtins.mapAttrs (
    _: config:
    if failed config != [ ] then
      throw (lib.concatMapStringsSep "\n" (one: one.message) (failed config))
    else
      import ./files.nix { inherit lib pkgs config; }
  ) nodes;
}
