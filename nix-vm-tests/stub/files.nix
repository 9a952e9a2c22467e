# The files of a machine, as NixOS would make them of its configuration: path -> `text` with `mode`, `link`,
# or `built`, a program of cargo's.
{
  lib,
  pkgs,
  config,
}:
let
  value =
    directive:
    if builtins.isBool directive then
      (if directive then "true" else "false")
    else
      toString directive;

  lines =
    set:
    lib.concatMapStringsSep "" (
      name:
      lib.concatMapStringsSep "" (one: "${name}=${value one}\n") (
        if builtins.isList set.${name} then set.${name} else [ set.${name} ]
      )
    ) (builtins.attrNames set);

  head =
    unit:
    "[Unit]\n"
    + lines (
      { Description = unit.description; }
      // lib.optionalAttrs (unit.conflicts != [ ]) { Conflicts = toString unit.conflicts; }
      // lib.optionalAttrs (unit.startLimitIntervalSec != null) { StartLimitIntervalSec = unit.startLimitIntervalSec; }
      // lib.optionalAttrs (unit ? reloadTriggers && unit.reloadTriggers != [ ]) {
        X-Reload-Triggers = toString unit.reloadTriggers;
      }
      // unit.unitConfig
    );

  # Of NixOS's own PATH for services only what a unit asks for: the rest is the machine's.
  environment =
    unit:
    lib.concatMapStringsSep "" (name: "Environment=${builtins.toJSON "${name}=${unit.environment.${name}}"}\n") (
      builtins.attrNames unit.environment
    );

  # What a switch to another configuration looks at. systemd does not.
  whenChanged =
    unit:
    lib.optionalAttrs unit.reloadIfChanged { X-ReloadIfChanged = true; }
    // lib.optionalAttrs (!unit.stopIfChanged) { X-StopIfChanged = false; }
    // lib.optionalAttrs unit.notSocketActivated { X-NotSocketActivated = true; };

  service = unit: "${head unit}[Service]\n${environment unit}${lines (whenChanged unit // unit.serviceConfig)}";
  socket =
    unit:
    "${head unit}[Socket]\n${
      lines (
        unit.socketConfig
        // {
          ListenStream = unit.listenStreams;
          ListenDatagram = unit.listenDatagrams;
        }
      )
    }";

  # It is there to read: what counts are the links.
  install = unit: if unit.wantedBy == [ ] then "" else "[Install]\n${lines { WantedBy = toString unit.wantedBy; }}";

  place = "/etc/systemd/system";

  unit =
    suffix: render: name: one:
    [
      (lib.nameValuePair "${place}/${name}.${suffix}" {
        text = render one + install one;
        mode = "0644";
      })
    ]
    ++ map (
      target: lib.nameValuePair "${place}/${target}.wants/${name}.${suffix}" { link = "../${name}.${suffix}"; }
    ) one.wantedBy;

  etc =
    name: file:
    if file.text != null then
      [
        (lib.nameValuePair "/etc/${name}" {
          inherit (file) text;
          mode = if file.mode == "symlink" then "0644" else file.mode;
        })
      ]
    else
      [ (lib.nameValuePair "/etc/${name}" { link = "${file.source}"; }) ]
      ++ lib.concatMap installed (if lib.isDerivation file.source then [ file.source ] else [ ]);

  installed =
    package:
    lib.mapAttrsToList (
      path: file:
      # A name in Nix cannot depend on a package.
      lib.nameValuePair (builtins.unsafeDiscardStringContext (if path == "" then "${package}" else "${package}/${path}")) (
        if file ? own then { link = file.own; } else file
      )
    ) package.files;

  # What a person in the machine has in the PATH.
  linked =
    package:
    map (path: lib.nameValuePair "/usr/local/${path}" { link = "${package}/${path}"; }) (builtins.attrNames package.files);

in
builtins.listToAttrs (
  builtins.concatLists (
    lib.mapAttrsToList (unit "service" service) config.systemd.services
    ++ lib.mapAttrsToList (unit "socket" socket) config.systemd.sockets
    ++ lib.mapAttrsToList etc config.environment.etc
    ++ map installed [
      pkgs.handover
      pkgs.handover-samples
      pkgs.python3
      pkgs.util-linux
    ]
    ++ map linked config.environment.systemPackages
  )
)
