//! What specifiers say about the machine and the manager: see systemd.unit(5), "SPECIFIERS".

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::path::PathBuf;

use nix::sys::utsname::uname;
use nix::unistd::{Gid, Group, Uid, User};

/// The values of the specifiers that are the same for all units of a manager, by their letter: %H is the
/// name of the machine, %t the folder below which RuntimeDirectory= is made.
///
/// The default is a machine of which nothing is known but where a system's manager keeps things.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Host {
    specifiers: BTreeMap<char, String>,
}

/// Where a system's manager keeps things.
const SYSTEM: [(char, &str); 13] = [
    ('t', "/run"),
    ('S', "/var/lib"),
    ('C', "/var/cache"),
    ('L', "/var/log"),
    ('E', "/etc"),
    ('D', "/usr/share"),
    ('T', "/tmp"),
    ('V', "/var/tmp"),
    ('u', "root"),
    ('U', "0"),
    ('g', "root"),
    ('G', "0"),
    ('h', "/root"),
];

/// Specifiers that may be known or not, and then are empty: of the machine, and of os-release(5).
const OF_THE_MACHINE: &str = "aAbBHlmMoqsvwW";

impl Default for Host {
    fn default() -> Self {
        let empty = OF_THE_MACHINE.chars().map(|letter| (letter, String::new()));
        let system = SYSTEM.iter().map(|(letter, value)| (*letter, (*value).to_owned()));
        Self { specifiers: empty.chain(system).collect() }
    }
}

impl Host {
    /// This machine, and a manager that this process is: the system's for root, else the user's own.
    pub fn current() -> Self {
        let host = Self::default().with_machine();
        let host = if Uid::effective().is_root() { host } else { host.with_user() };
        let temporary =
            ["TMPDIR", "TEMP", "TMP"].iter().find_map(std::env::var_os).filter(|folder| !folder.is_empty());
        host.with_path('T', temporary.clone().unwrap_or_else(|| "/tmp".into()))
            .with_path('V', temporary.unwrap_or_else(|| "/var/tmp".into()))
    }

    /// The same with another value for a specifier, by its letter.
    #[must_use]
    pub fn with(mut self, letter: char, value: impl Into<String>) -> Self {
        self.specifiers.insert(letter, value.into());
        self
    }

    fn with_path(self, letter: char, path: impl Into<OsString>) -> Self {
        self.with(letter, path.into().to_string_lossy())
    }

    /// The value of a specifier that is about the machine or the manager.
    pub fn specifier(&self, letter: char) -> Option<&str> {
        self.specifiers.get(&letter).map(String::as_str)
    }

    /// What the kernel and os-release(5) say.
    fn with_machine(mut self) -> Self {
        let line = |path: &str| fs::read_to_string(path).unwrap_or_default().trim().to_owned();
        if let Ok(kernel) = uname() {
            let host = kernel.nodename().to_string_lossy().into_owned();
            let short = host.split('.').next().unwrap_or_default().to_owned();
            self = self.with('q', pretty_name().unwrap_or_else(|| host.clone()));
            self = self.with('H', host).with('l', short);
            self = self.with('v', kernel.release().to_string_lossy());
        }
        self = self.with('a', architecture());
        self = self.with('b', line("/proc/sys/kernel/random/boot_id").replace('-', ""));
        self = self.with('m', line("/etc/machine-id"));
        let release = fs::read("/etc/os-release").or_else(|_| fs::read("/usr/lib/os-release"));
        let release = super::environment::assignments(&String::from_utf8_lossy(&release.unwrap_or_default()));
        let keys = [
            ('o', "ID"),
            ('w', "VERSION_ID"),
            ('B', "BUILD_ID"),
            ('W', "VARIANT_ID"),
            ('M', "IMAGE_ID"),
            ('A', "IMAGE_VERSION"),
        ];
        for (_, key, value) in release {
            if let Some((letter, _)) = keys.iter().find(|(_, known)| *known == key) {
                self = self.with(*letter, value);
            }
        }
        self
    }

    /// A user's manager: the user, and the folders of the XDG specification.
    fn with_user(mut self) -> Self {
        let (uid, gid) = (Uid::effective(), Gid::effective());
        let user = User::from_uid(uid).ok().flatten();
        let variable =
            |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
        let home = variable("HOME").or_else(|| user.as_ref().map(|user| user.dir.clone()));
        let home = home.unwrap_or_else(|| "/".into());
        let name = user.map_or_else(|| uid.to_string(), |user| user.name);
        let group = Group::from_gid(gid).ok().flatten().map_or_else(|| gid.to_string(), |group| group.name);
        self = self.with('u', name).with('U', uid.to_string()).with('g', group).with('G', gid.to_string());
        let below_home = |variable: Option<PathBuf>, path: &str| variable.unwrap_or_else(|| home.join(path));
        let state = below_home(variable("XDG_STATE_HOME"), ".local/state");
        let runtime = variable("XDG_RUNTIME_DIR").unwrap_or_else(|| format!("/run/user/{uid}").into());
        self.with_path('L', state.join("log"))
            .with_path('S', state)
            .with_path('C', below_home(variable("XDG_CACHE_HOME"), ".cache"))
            .with_path('E', below_home(variable("XDG_CONFIG_HOME"), ".config"))
            .with_path('D', below_home(variable("XDG_DATA_HOME"), ".local/share"))
            .with_path('t', runtime)
            .with_path('h', home)
    }
}

/// The machine's name for people, see machine-info(5).
fn pretty_name() -> Option<String> {
    let info = fs::read_to_string("/etc/machine-info").ok()?;
    let named =
        super::environment::assignments(&info).into_iter().find(|(_, key, _)| key == "PRETTY_HOSTNAME");
    named.map(|(_, _, value)| value).filter(|name| !name.is_empty())
}

/// The architecture in systemd's words.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "x86-64",
        "aarch64" => "arm64",
        "powerpc64" => "ppc64-le",
        "riscv64" => "riscv64",
        other => other,
    }
}
