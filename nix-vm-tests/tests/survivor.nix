# A unit whose processes outlive a soft-reboot: systemd-soft-reboot.service(8), "Resource Pass-Through".
{
  conflicts = [
    "reboot.target"
    "kexec.target"
    "poweroff.target"
    "halt.target"
  ];
  unitConfig = {
    DefaultDependencies = false;
    SurviveFinalKillSignal = true;
    IgnoreOnIsolate = true;
  };
}
