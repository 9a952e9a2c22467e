//! How systemd reads unit files, and how `handover::unit` does: the same values on its bus, the same lines
//! warned of. Over files made to be tricky, and over those that Debian's packages have.

mod compare;
mod shown;
mod values;
mod variables;

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use handover::unit::{UnitName, directives};

use crate::lab::{Machine, Systemd};
use compare::{compare, inside, major};

on_real_systemd! {
    fn tricky_units_are_read_as_systemd_reads_them(systemd) {
        let machine = Machine::boot(systemd);
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/unit/units");
        let names = push_all(&machine, &folder, "/etc/systemd/system");
        // Of two drop-ins of one name the first in the search path counts, but the type's is the last.
        for (folder, name) in [("tricky-drops.service.d", "30.conf"), ("tricky-drops.service.d", "99-type.conf")] {
            machine.push(&format!("/run/systemd/system/{folder}/{name}"), "[Service]\nEnvironment=RUN=1\n", 0o644);
        }
        let instances = ["tricky-specifiers@a-b\\x2dc-d.service", "tricky-drop-ins@one.service"];
        let units = names.iter().map(String::as_str).filter(|name| name.starts_with("tricky-") && !name.contains('@'));
        let asked: Vec<_> = units.chain(instances).map(str::to_owned).collect();
        let compared = compare(&machine, &asked);
        assert!(compared.units >= 30, "{compared:?}");
        let file = "/etc/systemd/system/tricky-ambient.service:2: The !! modifier";
        compared.assert_none(match systemd {
            // Since 257 the name is honoured with Accept=yes, too; we go with the newer ones.
            Systemd::V252 => &["tricky-accepting.socket: FileDescriptorName", "tricky-ambient.service: ExecStartEx"],
            // It says that `!!` is there, and so do we not: it changes nothing on kernels since 4.3.
            Systemd::V257 => &["tricky-ambient.service: ExecStartEx"],
            Systemd::V262 | Systemd::Standin => std::slice::from_ref(&file),
        });
    }

    fn values_are_taken_or_refused_as_systemd_does(systemd) {
        let machine = Machine::boot(systemd);
        let units = values::units();
        for (name, text) in &units {
            machine.push(&format!("/etc/systemd/system/{name}"), text, 0o644);
        }
        let asked: Vec<_> = units.into_iter().map(|(name, _)| name).collect();
        compare(&machine, &asked).assert_none(&[]);
    }

    fn the_units_of_debian_are_read_as_systemd_reads_them(systemd) {
        let machine = Machine::boot(systemd);
        let mut asked = Vec::new();
        let folder = "/usr/lib/systemd/system";
        // The units of packages that the trees do not have, for who brings some.
        if let Some(more) = std::env::var_os("MORE_UNITS") {
            push_all(&machine, Path::new(&more), folder);
        }
        for entry in fs::read_dir(inside(&machine, folder)).unwrap() {
            let name = entry.unwrap().file_name().into_string().unwrap();
            let Some(unit) = UnitName::parse(&name) else { continue };
            if ["service", "socket"].contains(&unit.kind()) {
                asked.push(if unit.is_template() { name.replace('@', "@an-instance") } else { name });
            }
        }
        asked.sort();
        let compared = compare(&machine, &asked);
        assert!(compared.units >= 100, "{compared:?}");
        // default.target is another unit's alias, which is none of our types.
        compared.assert_none(&["systemd-boot-check-no-failures.service: After= has no default.target"]);
    }

    fn the_table_of_directives_is_systemds(systemd) {
        let machine = Machine::boot(systemd);
        let version = major(&machine);
        // A newer one has more, and 262 is the last that the table knows of.
        if version > 262 {
            return;
        }
        let dump = machine.succeed(&["/usr/lib/systemd/systemd", "--dump-configuration-items"]);
        let (mut theirs, mut section) = (BTreeSet::new(), "");
        for line in dump.lines() {
            if let Some(header) = line.strip_prefix('[') {
                section = header.trim_end_matches(']');
            } else if let Some((key, _)) = line.split_once('=') {
                theirs.insert((section, key));
            }
        }
        theirs.retain(|(section, _)| ["Unit", "Service", "Socket", "Install"].contains(section));
        let ours = directives().filter(|(_, _, known)| (known.since..=known.until).contains(&version));
        let ours: BTreeSet<_> = ours.map(|(section, key, _)| (section, key)).collect();
        assert_eq!(ours, theirs);
    }
}

/// Copies a folder with its folders into the machine; returns the names of its files, sorted.
fn push_all(machine: &Machine, folder: &Path, target: &str) -> Vec<String> {
    let mut names = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        let target = format!("{target}/{name}");
        if path.is_dir() {
            push_all(machine, &path, &target);
        } else {
            machine.push(&target, fs::read(&path).unwrap(), 0o644);
            names.push(name);
        }
    }
    names.sort();
    names
}
