//! `nix-vm-tests`: what NixOS gets is read and evaluated by a real Nix, and the scripts of its tests run here,
//! unchanged, on the lab's machines.
//!
//! Without `nix-instantiate` or python3 it says that it was skipped, and in CI that is a failure. With NIXPKGS=path in
//! the environment everything is evaluated against that nixpkgs, too, or against its `lib` if that is all there is.

use std::collections::BTreeSet;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::lab::{Systemd, executable};

const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/nix-vm-tests");

/// A node with one service that is as it should be, but for what a test changes.
const GOOD: &str = r#"{ kind = "unmodified"; program = "/usr/bin/web"; listen = [ "8080" ]; }"#;

/// Skips a test where this host lacks a program.
fn can(program: &str) -> bool {
    let found = Command::new(program).arg("--version").stdout(Stdio::null()).status().is_ok();
    if !found {
        assert!(std::env::var_os("CI").is_none(), "in CI nothing is skipped: there is no {program}");
        // Past the capture of passing tests' output: a skip must not look like a pass.
        let _ = writeln!(std::io::stderr(), "skipped: a test of nix-vm-tests: there is no {program}");
    }
    found
}

/// nix-instantiate(1) with these arguments: what it prints, or what it complains of. Nothing is built, and no store
/// is written.
fn nix(arguments: &[&str]) -> Result<String, String> {
    let state = concat!(env!("CARGO_TARGET_TMPDIR"), "/nix");
    let mut nix = Command::new("nix-instantiate");
    nix.args(["--store", "dummy://"]).args(arguments).current_dir(FOLDER);
    nix.env("NIX_STATE_DIR", state).env("NIX_LOG_DIR", state).env("NIX_CONF_DIR", state);
    let done = nix.output().unwrap();
    let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
    if done.status.success() { Ok(text(&done.stdout)) } else { Err(text(&done.stderr)) }
}

/// The value of an expression, all of it.
fn value(expression: &str) -> Result<Value, String> {
    let printed = nix(&["--eval", "--strict", "--json", "-E", expression])?;
    serde_json::from_str(&printed).map_err(|error| error.to_string())
}

/// The units that the module writes for a service with these settings.
fn pair(settings: &str) -> Result<Value, String> {
    value(&format!("import {FOLDER}/stub/pair.nix ({settings})"))
}

/// All files with this ending.
fn files(ending: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![PathBuf::from(FOLDER)];
    while let Some(folder) = folders.pop() {
        for path in std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == ending) {
                found.push(path);
            }
        }
    }
    assert!(found.len() > 5);
    found
}

#[test]
fn every_expression_is_one_to_a_real_nix() {
    if can("nix-instantiate") {
        for file in files("nix") {
            nix(&["--parse", file.to_str().unwrap()]).unwrap();
        }
    }
}

#[test]
fn the_flake_has_every_test_as_a_check_and_a_module_that_needs_nothing_else() {
    if !can("nix-instantiate") {
        return;
    }
    let names = |what: &str| -> BTreeSet<String> {
        let list = value(&format!("builtins.attrNames ({what})")).unwrap();
        list.as_array().unwrap().iter().map(|name| name.as_str().unwrap().to_owned()).collect()
    };
    let flake = format!("(import {FOLDER}/stub/flake.nix)");
    let mut tests = names(&format!("import {FOLDER}/tests {{ pkgs = import {FOLDER}/stub {{ }}; }}"));
    for system in ["x86_64-linux", "aarch64-linux"] {
        let checks = names(&format!("{flake}.checks.{system}"));
        tests.insert("handover".to_owned());
        assert_eq!(checks, tests);
        let name = value(&format!("{flake}.packages.{system}.default.name")).unwrap();
        assert_eq!(name, concat!("handover-", env!("CARGO_PKG_VERSION")));
    }
    let node = format!("{{ imports = [ {flake}.nixosModules.default ]; services.handover.web = {GOOD}; }}");
    let files = machine(&node).unwrap();
    assert!(
        files["/etc/systemd/system/web.socket"]["text"].as_str().unwrap().contains("ListenStream=8080\n")
    );
    assert_eq!(files["/etc/systemd/system/sockets.target.wants/web.socket"]["link"], "../web.socket");
    assert_eq!(files["/etc/handover/web"]["link"], "/usr/bin/web");
}

/// The files of a machine of a test with this node.
fn machine(node: &str) -> Result<Value, String> {
    let test = format!(r#"{{ name = "one"; nodes.one = {node}; testScript = ""; }}"#);
    value(&format!("((import {FOLDER}/stub {{ }}).testers.runNixOSTest ({test})).machines.one"))
}

#[test]
fn what_is_wrong_is_an_error_that_names_it() {
    if !can("nix-instantiate") {
        return;
    }
    pair(GOOD).unwrap();
    for (wrong, says) in [
        ("lisen = [ \"8080\" ];", "`services.handover.web.lisen' does not exist"),
        ("kind = \"libary\";", "`services.handover.web.kind' is not of type `one of"),
        ("slots = \"3\";", "`services.handover.web.slots' is not of type `integer between 2 and 64'"),
        ("slots = 1;", "`services.handover.web.slots' is not of type `integer between 2 and 64'"),
        ("listen = \"8080\";", "`services.handover.web.listen' is not of type `list of string'"),
        ("listen = [ 8080 ];", "`services.handover.web.listen.*' is not of type `string'"),
        ("listen = [ ];", "services.handover.web: it listens nowhere"),
        ("settings.Restart = { };", "`services.handover.web.settings.Restart' is not of type"),
        ("package = \"/usr\";", "`services.handover.web.package' is not of type `package'"),
    ] {
        let said = pair(&format!("{GOOD} // {{ {wrong} }}")).unwrap_err();
        assert!(said.contains(says), "{wrong}: {said}");
    }
    let said = pair(r#"{ program = "/usr/bin/web"; listen = [ "8080" ]; }"#).unwrap_err();
    assert!(said.contains("`services.handover.web.kind' is used but not defined"), "{said}");
    for (wrong, says) in [
        ("{ systemd.service.web = { }; }", "`systemd.service' does not exist"),
        (
            "{ systemd.services.web.serviceConfg = { }; }",
            "`systemd.services.web.serviceConfg' does not exist",
        ),
        ("{ pkgs, ... }: { environment.systemPackages = [ pkgs.handove ]; }", "'handove' missing"),
        ("{ pkgz, ... }: { }", "a module wants pkgz"),
    ] {
        let said = machine(wrong).unwrap_err();
        assert!(said.contains(says), "{wrong}: {said}");
    }
}

/// The directives of a unit, but for [Install]: NixOS has links in its place. As the module and `handover init`
/// write the same differently: with quotes or without, `yes` or `true`. Without what is NixOS's own.
fn directives(unit: &str) -> BTreeSet<(String, String)> {
    let mut section = "";
    let mut found = BTreeSet::new();
    for line in unit.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        if line.starts_with('[') {
            section = line;
        } else if section != "[Install]" && !line.starts_with("X-") {
            let text = line.replace('"', "");
            let said = text.strip_suffix("=true").map(|name| format!("{name}=yes"));
            found.insert((section.to_owned(), said.unwrap_or(text)));
        }
    }
    found
}

#[test]
fn the_module_writes_the_pair_that_init_would() {
    if !can("nix-instantiate") {
        return;
    }
    for (kind, hardening) in
        ["library", "activation", "unmodified"].into_iter().flat_map(|kind| [(kind, true), (kind, false)])
    {
        let ours = pair(&format!("{GOOD} // {{ kind = \"{kind}\"; hardening = {hardening}; }}")).unwrap();
        let reload = ours["service"]
            .as_str()
            .unwrap()
            .lines()
            .find_map(|line| line.strip_prefix("ExecReload="))
            .unwrap();
        let handover = reload.strip_suffix(" reload").unwrap();
        let mut init = Command::new(env!("CARGO_BIN_EXE_handover"));
        init.args([
            "init",
            "web",
            "--print",
            "--listen=8080",
            "--exec=/etc/handover/web",
            "--handover",
            handover,
        ]);
        init.args(["--kind", kind, if hardening { "--hardening" } else { "--no-hardening" }])
            .stdin(Stdio::null());
        let printed = String::from_utf8(init.output().unwrap().stdout).unwrap();
        let (socket, service) = printed.split_at(printed.find("# web.service:").unwrap());
        assert_eq!(directives(ours["socket"].as_str().unwrap()), directives(socket), "{kind}");
        assert_eq!(directives(ours["service"].as_str().unwrap()), directives(service), "{kind}");
    }
}

#[test]
fn a_switch_reloads_where_that_applies_what_has_changed() {
    if !can("nix-instantiate") {
        return;
    }
    let service = |settings: &str| {
        let units = pair(&format!("{GOOD} // {{ {settings} }}")).unwrap();
        units["service"].as_str().unwrap().to_owned()
    };
    let reloads = |settings: &str| service(settings).contains("\nX-ReloadIfChanged=true\n");
    assert!(reloads(r#"kind = "library";"#));
    assert!(!reloads(r#"kind = "library"; arguments = [ "--fast" ];"#));
    assert!(!reloads(r#"kind = "unmodified";"#));
    // NixOS reloads if nothing but this has changed.
    let without = |settings: &str| -> Vec<String> {
        let text = service(settings);
        text.lines().filter(|line| !line.starts_with("X-Reload-Triggers=")).map(str::to_owned).collect()
    };
    let program = |program: &str| format!(r#"program = "{program}"; arguments = [ "--of" "{program}" ];"#);
    assert_eq!(without(&program("/nix/old")), without(&program("/nix/new")));
    assert_ne!(service(&program("/nix/old")), service(&program("/nix/new")));
}

#[test]
fn the_pair_passes_check_on_every_systemd() {
    if !can("nix-instantiate") {
        return;
    }
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("nix-pair");
    std::fs::create_dir_all(&folder).unwrap();
    for settings in [
        r#"{ kind = "library"; }"#,
        r#"{ kind = "library"; preserve = true; arguments = [ "--fast" ]; hardening = false; }"#,
        r#"{ kind = "activation"; slots = 5; runOptions = [ "--probe=tcp" ]; }"#,
        r#"{ kind = "unmodified"; arguments = [ "--port" "8080" ]; settings.TimeoutStopSec = "2min"; }"#,
    ] {
        let units = pair(&format!("{GOOD} // {settings}")).unwrap();
        let files = ["socket", "service"].map(|kind| {
            let file = folder.join(format!("web.{kind}"));
            std::fs::write(&file, units[kind].as_str().unwrap()).unwrap();
            file
        });
        for version in ["252", "257", "262"] {
            let mut check = Command::new(env!("CARGO_BIN_EXE_handover"));
            let told = check.args(["check", "--systemd", version]).args(&files).output().unwrap();
            let said = String::from_utf8(told.stdout).unwrap();
            assert!(told.status.success() && said.contains("nothing to mend"), "{settings}: {said}");
        }
    }
    std::fs::remove_dir_all(folder).unwrap();
}

#[test]
fn everything_evaluates_against_the_nixpkgs_that_there_is() {
    let Some(nixpkgs) = std::env::var_os("NIXPKGS").map(|path| PathBuf::from(path).canonicalize().unwrap())
    else {
        return;
    };
    let path = nixpkgs.display();
    if nixpkgs.join("nixos/lib").is_dir() {
        let pkgs = format!("import {path} {{ overlays = [ (import {FOLDER}/overlay.nix) ]; }}");
        let tests = format!("import {FOLDER}/tests {{ pkgs = {pkgs}; }}");
        let all = value(&format!("builtins.mapAttrs (_: test: test.drvPath) ({tests})")).unwrap();
        assert!(all.as_object().unwrap().values().all(|path| path.as_str().unwrap().ends_with(".drv")));
        return;
    }
    let with = |lib: &str| value(&format!("import {FOLDER}/stub/tests.nix {{ {lib} }}"));
    let own = with(&format!("lib = import {path}/lib;")).unwrap();
    assert_eq!(own, with("").unwrap(), "its module system and the stub's come to the same");
}

#[test]
fn the_driver_keeps_its_promises() {
    if can("python3") && can("nix-instantiate") {
        let mut checks = Command::new("python3");
        checks
            .args(["-B", "-W", "error", "-m", "unittest", "-q", "checks"])
            .current_dir(Path::new(FOLDER).join("driver"));
        assert!(checks.status().unwrap().success());
    }
}

/// Runs every script on one systemd, as the command of the folder does.
fn scripts(systemd: Systemd) {
    if can("python3") && can("nix-instantiate") {
        let target = executable().ancestors().nth(2).unwrap().to_owned();
        let mut driver = Command::new("python3");
        driver.arg("-B").arg(Path::new(FOLDER).join("driver")).arg("--systemd").arg(systemd.to_string());
        let done = driver.arg("--target").arg(target).output().unwrap();
        let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
        println!("{}", text(&done.stdout));
        assert!(done.status.success(), "{}", text(&done.stderr));
    }
}

mod v257 {
    #[test]
    fn every_script_runs_unchanged() {
        crate::lab::on(crate::lab::Systemd::V257, crate::lab::Needs::Nothing, super::scripts);
    }
}

mod v262 {
    #[test]
    fn every_script_runs_unchanged() {
        crate::lab::on(crate::lab::Systemd::V262, crate::lab::Needs::Nothing, super::scripts);
    }
}
