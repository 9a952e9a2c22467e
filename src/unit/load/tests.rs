//! Folders of unit files, made for each test.

use std::os::unix::fs::symlink;

use super::*;

/// A folder with these files; it goes when it is dropped.
struct Folder(PathBuf);

impl Folder {
    fn with(name: &str, files: &[(&str, &str)]) -> Self {
        let folder = std::env::temp_dir().join(format!("handover-load-{name}-{}", std::process::id()));
        for (file, text) in files {
            let path = folder.join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        Self(folder)
    }

    fn load(&self, files: &[&str]) -> Loaded {
        load(&files.iter().map(|file| self.0.join(file)).collect::<Vec<_>>(), Host::default())
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn names_of<T>(units: &[(UnitName, T)]) -> Vec<&str> {
    units.iter().map(|(name, _)| name.as_str()).collect()
}

const SERVICE: &str = "[Service]\nExecStart=/bin/true\n";

#[test]
fn a_folder_is_all_its_services_and_sockets_with_their_drop_ins() {
    let files = [
        ("web.service", SERVICE),
        ("web.socket", "[Socket]\nListenStream=80\n"),
        ("web.service.d/10.conf", "[Service]\nNice=5\n"),
        ("web.service.d/hidden", "[Service]\nNice=6\n"),
        ("job@.service", SERVICE),
        ("web.timer", "[Timer]\n"),
        ("notes.txt", "no unit"),
    ];
    let folder = Folder::with("folder", &files);
    let loaded = folder.load(&[""]);
    assert_eq!(loaded.findings, []);
    assert_eq!(
        (names_of(&loaded.services), names_of(&loaded.sockets)),
        (vec!["web.service"], vec!["web.socket"])
    );
    assert_eq!(loaded.services[0].1.exec.nice, Some(5));
    assert_eq!(loaded.units[0].files().len(), 2);
}

#[test]
fn a_socket_brings_its_service_and_an_instance_its_template() {
    let files = [
        ("a.socket", "[Socket]\nListenStream=80\nService=job@%p.service\n"),
        ("job@.service", "[Service]\nExecStart=/bin/echo %i\nSockets=b.socket\n"),
        ("job@a.service.d/x.conf", "[Service]\nNice=1\n"),
        ("b.socket", "[Socket]\nListenStream=81\nService=job@a.service\n"),
    ];
    let folder = Folder::with("instance", &files);
    let loaded = folder.load(&["a.socket"]);
    assert_eq!(loaded.findings, []);
    assert_eq!(names_of(&loaded.services), ["job@a.service"]);
    assert_eq!(names_of(&loaded.sockets), ["a.socket", "b.socket"]);
    assert_eq!(loaded.services[0].1.exec_start[0].words, ["/bin/echo", "a"]);
    assert_eq!(loaded.services[0].1.exec.nice, Some(1));
    assert!(names_of(&folder.load(&["job@b.service"]).services).contains(&"job@b.service"));
}

#[test]
fn an_alias_is_the_unit_it_stands_for_and_a_masked_one_is_none() {
    let folder = Folder::with("alias", &[("real.service", SERVICE), ("masked.service", "")]);
    symlink("real.service", folder.0.join("alias.service")).unwrap();
    symlink("/dev/null", folder.0.join("null.service")).unwrap();
    symlink("circle.service", folder.0.join("circle.service")).unwrap();
    let loaded = folder.load(&[""]);
    assert_eq!(names_of(&loaded.services), ["real.service"]);
    let findings: Vec<_> = loaded.findings.iter().map(Finding::to_string).collect();
    assert_eq!(findings.iter().filter(|finding| finding.ends_with("the unit is masked")).count(), 2);
    assert!(findings.iter().any(|finding| finding.contains("circle.service: ")), "{findings:?}");
}

#[test]
fn what_is_not_there_or_no_unit_is_told() {
    let folder = Folder::with("missing", &[("a.socket", "[Socket]\nListenStream=80\n"), ("bad.service", "")]);
    let loaded = folder.load(&["a.socket", "job@.service", "notes.txt", "gone.service"]);
    let findings: Vec<_> = loaded.findings.iter().map(Finding::to_string).collect();
    let wanted = [
        "a template cannot run",
        "wanted a .service, a .socket or a folder",
        "gone.service: not found in ",
        "a.service: not found in ",
    ];
    for (finding, wanted) in findings.iter().zip(wanted) {
        assert!(finding.starts_with("error: ") && finding.contains(wanted), "{findings:?}");
    }
    assert_eq!((findings.len(), loaded.sockets.len()), (4, 1));
}

#[test]
fn a_fifo_is_no_unit_and_nobody_waits_for_it() {
    let folder = Folder::with("fifo", &[("b.service", SERVICE)]);
    nix::unistd::mkfifo(&folder.0.join("a.service"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    let loaded = folder.load(&[""]);
    assert_eq!(names_of(&loaded.services), ["b.service"]);
    assert!(loaded.findings[0].to_string().ends_with("not a regular file"));
}
