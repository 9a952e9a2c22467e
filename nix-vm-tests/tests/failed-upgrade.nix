# An upgrade that fails changes nothing: the old process serves on, and the reason has a name.
{
  name = "handover-failed-upgrade";

  nodes.machine.imports = [ ./nodes/web.nix ];

  testScript = builtins.readFile ./words.py + ''
    start_all()
    machine.wait_for_unit("web.service")
    start_clients()
    old = main_pid("web.service")

    for how, reason in [("init-exit", "successor-exited"), ("init-error", "init-failed")]:
        with subtest(how):
            settings("web.service", f"Environment=WEB_FAIL={how}")
            machine.fail("timeout 300 systemctl reload web.service")
            t.assertEqual(main_pid("web.service"), old)
            status = machine.get_unit_property("web.service", "StatusText")
            t.assertIn(f"upgrade failed: {reason}: ", status)
            clients_go_on()

    with subtest("the exit status tells the reason, too"):
        code, told = machine.execute("handover upgrade web")
        t.assertEqual(code, 23)
        t.assertIn(f"; {old} is still serving", told)

    with subtest("a good program takes over"):
        settings("web.service")
        upgrade("web.service")
        t.assertIn("serving", machine.get_unit_property("web.service", "StatusText"))

    clients_go_on()
    nothing_was_lost()
    is_calm("web.service")
  '';
}
