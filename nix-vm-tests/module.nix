# NixOS module: `services.handover.<name>` writes the pair of units with which <name> is upgraded by
# `systemctl reload <name>`, restarted and crashes with nothing lost. Each directive is that of `handover init`,
# which also says why.
{
  config,
  lib,
  pkgs,
  utils,
  ...
}:
let
  inherit (lib) mkOption types;

  # What NixOS itself takes as the value of a directive.
  directive = types.oneOf [
    types.bool
    types.int
    types.str
    types.path
    (types.listOf types.str)
  ];

  service =
    { name, config, ... }:
    {
      options = {
        enable = lib.mkEnableOption "this service" // {
          default = true;
        };

        kind = mkOption {
          type = types.enum [
            "library"
            "activation"
            "unmodified"
          ];
          description = ''
            How the program takes part: it is built on the library of handover; it takes sockets by LISTEN_FDS,
            sd_listen_fds(3); or it knows nothing of this and binds its addresses itself. The latter two run
            under `handover run`.
          '';
        };

        program = mkOption {
          type = types.either types.path types.str;
          example = lib.literalExpression "lib.getExe pkgs.nginx";
          description = "The executable, with its whole path.";
        };

        arguments = mkOption {
          type = types.listOf types.str;
          default = [ ];
          description = "What it is called with.";
        };

        listen = mkOption {
          type = types.listOf types.str;
          default = [ ];
          example = [ "0.0.0.0:8080" ];
          description = ''
            Addresses of ListenStream=, systemd.socket(5). For a program that binds them itself they are
            written as it binds them: 0.0.0.0:8080 and [::]:8080 are two addresses.
          '';
        };

        listenDatagram = mkOption {
          type = types.listOf types.str;
          default = [ ];
          example = [ "0.0.0.0:5353" ];
          description = "The same for ListenDatagram=.";
        };

        socketName = mkOption {
          type = types.str;
          default = name;
          description = "The name under which the program finds its sockets: FileDescriptorName=.";
        };

        slots = mkOption {
          type = types.ints.between 2 64;
          default = 3;
          description = ''
            How many sockets PID 1 holds for each address of a program under `handover run`: one less is how
            many generations can drain at a time.
          '';
        };

        runOptions = mkOption {
          type = types.listOf types.str;
          default = [ ];
          example = [ "--probe=http:/health" ];
          description = "Options of `handover run`, see `handover run --help`.";
        };

        environment = mkOption {
          type = types.attrsOf types.str;
          default = { };
          description = "Variables for the program; a reload applies them.";
        };

        store = mkOption {
          type = types.ints.positive;
          default = if config.kind == "library" then 512 else 64;
          defaultText = lib.literalExpression ''if kind == "library" then 512 else 64'';
          description = "How many connections, and other descriptors, PID 1 holds at most: FileDescriptorStoreMax=.";
        };

        preserve = mkOption {
          type = types.bool;
          default = false;
          description = ''
            Whether PID 1 holds them over `systemctl stop` and soft-reboot, too: FileDescriptorStorePreserve=.
          '';
        };

        hardening = mkOption {
          type = types.bool;
          default = true;
          description = ''
            Whether the service runs in a sandbox, as a user of its own that exists while it runs; `settings`
            takes out what the program cannot bear.
          '';
        };

        settings = mkOption {
          type = types.attrsOf directive;
          default = { };
          example = {
            TimeoutStopSec = "2min";
          };
          description = "Directives for the [Service] section, in place of those that stand here or beside them.";
        };

        package = mkOption {
          type = types.package;
          default = pkgs.handover;
          defaultText = lib.literalExpression "pkgs.handover";
          description = "Which handover to use.";
        };
      };
    };

  enabled = lib.filterAttrs (_: cfg: cfg.enable) config.services.handover;

  runs = cfg: cfg.kind != "library";

  # A path that stays: the successor is started from the path of its predecessor, which in the store would be
  # the old program for ever. A script in between makes arguments stay current, too; but to the library that
  # path would be the program's own.
  place = name: "/etc/handover/${name}";

  command = cfg: utils.escapeSystemdExecArgs ([ cfg.program ] ++ cfg.arguments);

  source =
    name: cfg:
    if runs cfg && cfg.arguments != [ ] then
      pkgs.writeShellScript "handover-${name}" "exec ${lib.escapeShellArgs ([ cfg.program ] ++ cfg.arguments)}"
    else
      cfg.program;

  start =
    name: cfg:
    utils.escapeSystemdExecArgs (
      if runs cfg then
        [
          (lib.getExe cfg.package)
          "run"
        ]
        ++ cfg.runOptions
        ++ [
          "--"
          (place name)
        ]
      else
        [ (place name) ] ++ cfg.arguments
    );

  addresses = cfg: list: if runs cfg then lib.concatMap (lib.replicate cfg.slots) list else list;

  common = name: cfg: {
    # Whoever starts the service starts its sockets first.
    Sockets = "${name}.socket";
    Type = "notify";
    NotifyAccess = "main";
    ExecStart = start name cfg;
    # Synchronous: its exit status is the result of the reload, which Type=notify-reload cannot give.
    ExecReload = "${lib.getExe cfg.package} reload";
    # The successor logs under the service's name, not under that of the command above.
    SyslogIdentifier = "%N";
    # PID 1 would make the sockets blocking at a restart, also for a process that still drains.
    NonBlocking = true;
    # Longer than an upgrade, and what is in flight, may take: else either would be cut.
    TimeoutStartSec = "90s";
    TimeoutStopSec = "90s";
    Restart = "always";
    RestartSec = "100ms";
    FileDescriptorStoreMax = cfg.store;
  };

  # At a start everything in the store takes a number below this limit.
  ofLibrary.LimitNOFILE = 65536;

  ofRunner = {
    # A cgroup for each generation of the program.
    Delegate = true;
    # Programs outlive a runner that is killed.
    KillMode = "process";
  };

  sandbox =
    cfg:
    {
      DynamicUser = true;
      StateDirectory = "%N";
      CapabilityBoundingSet = "";
      ProtectSystem = "strict";
      ProtectHome = true;
      PrivateTmp = true;
      PrivateDevices = true;
      ProtectKernelTunables = true;
      ProtectKernelModules = true;
      ProtectKernelLogs = true;
      ProtectClock = true;
      ProtectHostname = true;
      NoNewPrivileges = true;
      # AF_UNIX is how a service talks with PID 1 and with its successor.
      RestrictAddressFamilies = "AF_UNIX AF_INET AF_INET6";
      # The runner sees what its program binds, and takes the sockets.
      SystemCallFilter = "@system-service" + lib.optionalString (runs cfg) " pidfd_getfd seccomp";
      SystemCallArchitectures = "native";
      RestrictNamespaces = true;
      RestrictRealtime = true;
      RestrictSUIDSGID = true;
      LockPersonality = true;
    }
    # The runner makes cgroups.
    // lib.optionalAttrs (!runs cfg) { ProtectControlGroups = true; };

  serviceUnit =
    name: cfg:
    {
      description = name;
      # The second one is for soft-reboot: systemd 254 to 260 forget a unit that nobody wants all the while, and
      # its store with it.
      wantedBy = [ "multi-user.target" ] ++ lib.optional cfg.preserve "system.slice";
      inherit (cfg) environment;
      # Restart for ever: at a start limit PID 1 would close the socket, and reset who waits in it.
      startLimitIntervalSec = 0;
      # What `nixos-rebuild switch` does when something has changed: a reload if that applies it, else a restart, in
      # one step. A successor on the library has all of today's settings but its arguments, which are those of its
      # predecessor; a generation under `handover run` has its program and arguments, and the runner's sandbox.
      reloadIfChanged = !runs cfg && cfg.arguments == [ ];
      reloadTriggers = [ (command cfg) ];
      stopIfChanged = false;
      # Else NixOS would stop the service and its sockets, and start the sockets.
      notSocketActivated = true;
      serviceConfig =
        common name cfg
        // (if runs cfg then ofRunner else ofLibrary)
        // lib.optionalAttrs cfg.preserve { FileDescriptorStorePreserve = true; }
        // lib.optionalAttrs cfg.hardening (sandbox cfg)
        // cfg.settings;
    };

  socketUnit = name: cfg: {
    description = "Sockets of ${name}";
    wantedBy = [ "sockets.target" ];
    listenStreams = addresses cfg cfg.listen;
    listenDatagrams = addresses cfg cfg.listenDatagram;
    socketConfig = {
      FileDescriptorName = cfg.socketName;
      # A service that crashes again and again must not take the socket down with it.
      TriggerLimitIntervalSec = 0;
    }
    // lib.optionalAttrs (runs cfg) { ReusePort = true; };
  };
in
{
  options.services.handover = mkOption {
    type = types.attrsOf (types.submodule service);
    default = { };
    description = "Services that are upgraded, restarted or crash with nothing lost.";
  };

  config = {
    systemd.services = lib.mapAttrs serviceUnit enabled;
    systemd.sockets = lib.mapAttrs socketUnit enabled;
    environment.etc = lib.mapAttrs' (name: cfg: lib.nameValuePair "handover/${name}" { source = source name cfg; }) enabled;
    assertions = lib.mapAttrsToList (name: cfg: {
      assertion = cfg.listen ++ cfg.listenDatagram != [ ];
      message = "services.handover.${name}: it listens nowhere: set listen";
    }) enabled;
  };
}
