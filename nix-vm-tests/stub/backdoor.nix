# The framework's own shell in a machine, as nodes may change it. The lab has another way in, and no such program.
{
  systemd.services.backdoor = {
    wantedBy = [ "multi-user.target" ];
    unitConfig.ConditionPathExists = "/usr/lib/nixos-test/backdoor";
    serviceConfig = {
      ExecStart = "/usr/lib/nixos-test/backdoor";
      KillSignal = "SIGHUP";
    };
  };
}
