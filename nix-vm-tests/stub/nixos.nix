# As much of NixOS as nodes of the tests set: its options with their types, no more. What is not here is
# an error, as a name that NixOS does not know is one there.
{ lib, ... }:
let
  inherit (lib) mkOption types;
  list = mkOption {
    type = types.listOf types.str;
    default = [ ];
  };
  flag =
    default:
    mkOption {
      type = types.bool;
      inherit default;
    };
  # systemd.unit(5): a list is the directive several times.
  directive = types.oneOf [
    types.bool
    types.int
    types.str
    types.path
    (types.listOf types.str)
  ];
  section = mkOption {
    type = types.attrsOf directive;
    default = { };
  };

  unit.options = {
    description = mkOption {
      type = types.str;
      default = "";
    };
    conflicts = list;
    wantedBy = list;
    unitConfig = section;
    startLimitIntervalSec = mkOption {
      type = types.nullOr types.int;
      default = null;
    };
  };

  service = {
    imports = [ unit ];
    options = {
      environment = mkOption {
        type = types.attrsOf (types.nullOr types.str);
        default = { };
      };
      notSocketActivated = flag false;
      reloadIfChanged = flag false;
      reloadTriggers = mkOption {
        type = types.listOf directive;
        default = [ ];
      };
      serviceConfig = section;
      stopIfChanged = flag true;
    };
  };

  socket = {
    imports = [ unit ];
    options = {
      listenDatagrams = list;
      listenStreams = list;
      socketConfig = section;
    };
  };

  file.options = {
    mode = mkOption {
      type = types.str;
      default = "symlink";
    };
    source = mkOption {
      type = types.nullOr types.path;
      default = null;
    };
    text = mkOption {
      type = types.nullOr types.lines;
      default = null;
    };
  };
in
{
  options = {
    assertions = mkOption {
      type = types.listOf types.anything;
      default = [ ];
    };
    environment.etc = mkOption {
      type = types.attrsOf (types.submodule file);
      default = { };
    };
    environment.systemPackages = mkOption {
      type = types.listOf types.package;
      default = [ ];
    };
    nixpkgs.overlays = mkOption {
      type = types.listOf types.anything;
      default = [ ];
    };
    systemd.services = mkOption {
      type = types.attrsOf (types.submodule service);
      default = { };
    };
    systemd.sockets = mkOption {
      type = types.attrsOf (types.submodule socket);
      default = { };
    };
  };
}
