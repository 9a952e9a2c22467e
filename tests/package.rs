//! The Debian package: built by `packaging/deb` as for a release, from the tests' own build, and installed
//! with dpkg on each Debian.

use std::path::PathBuf;
use std::process::Command;
use std::sync::OnceLock;

use crate::lab::{Machine, Systemd};
use crate::web;

/// Where its units are.
const EXAMPLES: &str = "/usr/share/doc/handover/examples";

on_real_systemd! {
    fn the_package_installs_all_that_it_names_and_its_example_works_as_it_is(systemd) {
        let machine = installed(systemd);
        let version = machine.succeed(&["handover", "--version"]);
        let (own, found) = version.trim_end().split_once('\n').unwrap();
        assert_eq!(own, concat!("handover ", env!("CARGO_PKG_VERSION")));
        let systemd = machine.succeed(&["systemctl", "--version"]);
        let number = systemd.split_whitespace().nth(1).unwrap();
        assert!(found.starts_with(&format!("systemd {number}")), "{found}");
        machine.succeed(&["sh", "-c", &format!("cp {EXAMPLES}/web.* /etc/systemd/system/")]);
        machine.succeed(&["systemctl", "enable", "--now", "web.socket", "web.service"]);
        machine.succeed(&["handover", "upgrade", "web"]);
        machine.succeed(&["systemctl", "disable", "--now", "web.socket", "web.service"]);
        machine.succeed(&["dpkg", "--purge", "handover"]);
        let left = machine.succeed(&["find", "/usr", "-name", "*handover*"]);
        assert_eq!(left, "", "after a purge nothing is left");
    }

    fn every_command_has_a_manual_page_that_says_what_its_help_says(systemd) {
        let machine = installed(systemd);
        let help = machine.succeed(&["handover", "--help"]);
        let commands = help.split_once("Commands:").unwrap().1.split_once("Options:").unwrap().0;
        let commands = commands.lines().filter_map(|line| line.split_whitespace().next());
        for command in commands {
            let page = machine.succeed(&["zcat", &format!("/usr/share/man/man1/handover-{command}.1.gz")]);
            let help = machine.succeed(&["handover", command, "--help"]);
            // A line of an option: `  -h, --help`, `      --json`.
            let options = help.lines().filter(|line| line.trim_start().starts_with('-'));
            for option in options.flat_map(str::split_whitespace).filter(|word| word.starts_with("--")) {
                let option = option.trim_matches(|c: char| !c.is_ascii_alphanumeric() && c != '-');
                assert!(page.replace('\\', "").contains(option), "{command} {option}:\n{page}");
            }
            assert_eq!(help.contains("\nExit status"), page.contains("EXIT STATUS"), "{page}");
        }
    }

    fn shells_complete_commands_options_and_the_names_of_units(systemd) {
        let machine = installed(systemd);
        machine.unit("shop.service", "[Service]\nExecStart=/bin/sleep infinity\n");
        machine.succeed(&["systemctl", "start", "shop"]);
        for (line, word) in [("upg", "upgrade"), ("upgrade --js", "--json"), ("upgrade sho", "shop")] {
            let script = format!(
                "source /usr/share/bash-completion/completions/handover
                 COMP_WORDS=(handover {line}) COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1)) COMP_TYPE=9
                 _clap_complete_handover handover ${{COMP_WORDS[-1]}} ${{COMP_WORDS[-2]}} 2> /dev/null
                 echo ${{COMPREPLY[@]}}"
            );
            assert_eq!(machine.succeed(&["bash", "-c", &script]).trim(), word, "{line}");
        }
        let scripts = ["/usr/share/zsh/vendor-completions/_handover", "/usr/share/fish/vendor_completions.d/handover.fish"];
        for (script, shell) in scripts.into_iter().zip(["zsh", "fish"]) {
            let asks = format!("HANDOVER_COMPLETE={shell}");
            let text = machine.succeed(&["cat", script]);
            assert!(text.contains(&asks) || text.contains(&asks.replace('=', "=\"")), "{text}");
            let asked = ["env", &asks, "_CLAP_COMPLETE_INDEX=2", "handover", "--", "handover", "upgrade", "sho"];
            assert!(machine.succeed(&asked).starts_with("shop"), "{shell}");
        }
    }
}

/// A machine with the package in it, and the sample that its example starts.
fn installed(systemd: Systemd) -> Machine {
    let machine = Machine::with(systemd)
        .copy(package(), "/root/handover.deb")
        .copy(web::binary(), "/usr/bin/web")
        .boot();
    // The trees are without documents: dpkg.cfg(5) there excludes them.
    machine.succeed(&["dpkg", "--path-include=/usr/share/*", "--install", "/root/handover.deb"]);
    machine
}

/// Builds it, once a run.
fn package() -> PathBuf {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT
        .get_or_init(|| {
            let script = concat!(env!("CARGO_MANIFEST_DIR"), "/packaging/deb");
            let done = Command::new(script).args(["dev", "--fast"]).output().unwrap();
            assert!(done.status.success(), "{done:?}; tests/setup.sh installs cargo-deb");
            PathBuf::from(String::from_utf8(done.stdout).unwrap().trim())
        })
        .clone()
}
