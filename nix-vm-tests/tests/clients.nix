# A service whose processes are clients, as tests/clients.rs has them: started when each has had an answer,
# reloaded when each has had two more, stopped and not failed if nothing was lost.
{ pkgs, words }:
{
  serviceConfig = {
    Type = "notify-reload";
    ExecStart = "${pkgs.handover-samples}/bin/clients ${words}";
    TimeoutStartSec = 300;
    TimeoutStopSec = 300;
  };
}
