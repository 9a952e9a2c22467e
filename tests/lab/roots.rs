//! Root trees: Debian's smallest with one systemd in it, built once by mmdebstrap from this machine's
//! own apt sources and kept outside the clone. A tree is never changed once it has its name.
//!
//! The name holds a hash of the recipe; sid moves, so its name holds the week too.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use crate::systemd::Systemd;
use crate::{Doing, apt};

/// systemd, and the libraries that it opens only where they are there: without libseccomp2 the sandbox
/// options of 262 are ignored in silence. And two servers that know nothing of handover.
const PACKAGES: &str = "systemd,systemd-sysv,dbus,dbus-user-session,libpam-systemd,libpam0g,libseccomp2,\
    libselinux1,libapparmor1,libaudit1,libacl1,libkmod2,libcrypt1,libbpf1,libzstd1,liblz4-1,\
    login,mount,passwd,procps,util-linux,python3,nginx";

/// Servers that know nothing of handover either, and what compiles two more of them.
const PROGRAMS: &str = "gunicorn,python3-uvicorn,nodejs,redis-server,openjdk-21-jre-headless,golang-go";

/// What a machine stands on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tree {
    /// With this systemd in it; the stand-in's is this host's own /usr.
    Of(Systemd),
    /// That of 257, and programs.
    Programs,
}

impl Tree {
    /// All that are built.
    pub(crate) const ALL: [Self; 4] =
        [Self::Programs, Self::Of(Systemd::V252), Self::Of(Systemd::V257), Self::Of(Systemd::V262)];

    /// The tree for a machine with this PID 1; with `programs`, where there is a tree that has them.
    pub(crate) fn new(systemd: Systemd, programs: bool) -> Self {
        match systemd {
            Systemd::V257 | Systemd::Standin if programs => Self::Programs,
            _ => Self::Of(systemd),
        }
    }
}

/// A tree, and the shared lock that keeps it from being cleared away while a machine stands on it.
pub(crate) struct Root {
    pub(crate) path: PathBuf,
    _lock: File,
}

/// The tree, built now if it is missing; whoever else wants it meanwhile waits.
pub(crate) fn get(tree: Tree) -> Result<Root, String> {
    if tree == Tree::Of(Systemd::Standin) {
        // Nobody clears it away.
        return Ok(Root { path: "/usr".into(), _lock: File::open("/usr").doing("/usr")? });
    }
    hold(path(tree), |path, lock| {
        build(&recipe(tree), suite(tree), path, lock)?;
        clear_older(path);
        Ok(())
    })
}

/// A kernel of Debian's that finds its root on an NVMe disk without an initramfs: for those whose machines
/// need one of their own. 252's own release has none such; the others' systemd runs on this one.
pub(crate) fn kernel() -> Result<PathBuf, String> {
    let words = ["--variant=extract", "--include=linux-image-cloud-amd64"];
    let recipe: Vec<_> = words.into_iter().map(str::to_owned).chain(apt_options()).collect();
    let tree = hold(place("kernel", &recipe), |path, lock| {
        build(&recipe, suite(Tree::Of(Systemd::V257)), path, lock)
    })?;
    let boot = tree.path.join("boot");
    let names = fs::read_dir(&boot).doing(boot.display())?.flatten().map(|entry| entry.path());
    let is_kernel =
        |path: &PathBuf| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("vmlinuz-"));
    names.into_iter().find(is_kernel).ok_or_else(|| format!("{}: no kernel", boot.display()))
}

/// The tree at `path`, by `build` if it is missing.
fn hold(path: PathBuf, build: impl Fn(&Path, &File) -> Result<(), String>) -> Result<Root, String> {
    let cache = path.parent().ok_or("the cache has no path")?;
    fs::create_dir_all(cache).doing(cache.display())?;
    let lock_path = path.with_extension("lock");
    let lock = File::create(&lock_path).doing(lock_path.display())?;
    lock.lock_shared().doing(lock_path.display())?;
    if !path.exists() {
        lock.unlock().and_then(|()| lock.lock()).doing(lock_path.display())?;
        if !path.exists() {
            build(&path, &lock)?;
        }
        lock.unlock().and_then(|()| lock.lock_shared()).doing(lock_path.display())?;
    }
    Ok(Root { path, _lock: lock })
}

/// Builds what is missing of `wanted`, two at a time: more would only wait for the disk. A line for each.
pub(crate) fn build_all(wanted: &[Tree]) -> Result<(), String> {
    let queue = Mutex::new(wanted.iter().copied());
    // A function of its own, so that the lock is not held while a tree is built.
    let next = || queue.lock().map(|mut queue| queue.next()).map_err(|why| why.to_string());
    let worker = || {
        while let Some(tree) = next()? {
            let start = Instant::now();
            let root = get(tree)?;
            println!("{tree:?} {} {:.1} s", root.path.display(), start.elapsed().as_secs_f32());
        }
        Ok(())
    };
    std::thread::scope(|scope| {
        let second = scope.spawn(worker);
        worker()?;
        second.join().unwrap_or_else(|_| Err("a builder panicked".into()))
    })
}

/// Whether one of these trees is not there.
pub(crate) fn to_build(trees: &[Tree]) -> bool {
    trees.iter().any(|tree| !path(*tree).exists())
}

/// The Debian mirror of this machine's own apt sources.
pub(crate) fn mirror() -> Result<String, String> {
    let release = fs::read_to_string("/etc/os-release").unwrap_or_default();
    let codename = release.lines().find_map(|line| line.strip_prefix("VERSION_CODENAME="));
    let listed = fs::read_dir("/etc/apt/sources.list.d").into_iter().flatten().flatten();
    let mut files: Vec<PathBuf> = listed.map(|entry| entry.path()).collect();
    files.push("/etc/apt/sources.list".into());
    files.sort();
    let found = files.iter().find_map(|file| {
        let text = fs::read_to_string(file).ok()?;
        apt::mirror(&file.to_string_lossy(), &text, codename.unwrap_or_default().trim_matches('"'))
    });
    found.ok_or_else(|| "apt's sources name no mirror of Debian's main".into())
}

fn suite(tree: Tree) -> &'static str {
    match tree {
        Tree::Of(Systemd::V252) => "bookworm",
        Tree::Of(Systemd::V257) | Tree::Programs => "trixie",
        Tree::Of(Systemd::V262) => "sid",
        Tree::Of(Systemd::Standin) => "none",
    }
}

fn recipe(tree: Tree) -> Vec<String> {
    let mut words = vec!["--variant=minbase".into(), format!("--include={PACKAGES}")];
    words.extend(apt_options());
    words.push("--dpkgopt=force-unsafe-io".into());
    for folder in ["doc", "man", "locale", "info", "i18n"] {
        words.push(format!("--dpkgopt=path-exclude=/usr/share/{folder}/*"));
    }
    words.push(format!("--customize-hook={}", include_str!("root.sh")));
    if tree == Tree::Programs {
        words.push(format!("--include={PROGRAMS}"));
        // The JRE's package insists on a folder for its manual.
        words.push("--essential-hook=mkdir -p \"$1/usr/share/man/man1\"".into());
        let sources = [
            ("Server.java", include_str!("../programs/Server.java")),
            ("server.go", include_str!("../programs/server.go")),
        ];
        for (name, source) in sources {
            let write = format!(
                "mkdir -p \"$1/opt/programs\"; cat > \"$1/opt/programs/{name}\" <<'END'\n{source}END"
            );
            words.push(format!("--customize-hook={write}"));
        }
        words.push(format!("--customize-hook={}", include_str!("programs.sh")));
    }
    words
}

fn apt_options() -> [String; 3] {
    // A mirror that stands still, a snapshot, is as good; signatures are checked as ever.
    let options = [
        "Acquire::Retries \"3\"",
        "Acquire::Check-Valid-Until \"false\"",
        "APT::Install-Recommends \"false\"",
    ];
    options.map(|option| format!("--aptopt={option}"))
}

/// Where the tree is, or will be: `<cache>/<suite>-<recipe>[-<week>]`.
fn path(tree: Tree) -> PathBuf {
    let path = place(suite(tree), &recipe(tree));
    if tree != Tree::Of(Systemd::V262) {
        return path;
    }
    let age = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    path.with_file_name(format!(
        "{}-{}",
        path.file_name().unwrap_or_default().display(),
        age.as_secs() / (7 * 24 * 3600)
    ))
}

/// Where a tree by this recipe is.
fn place(what: &str, recipe: &[String]) -> PathBuf {
    let cache = std::env::var_os("HANDOVER_LAB_CACHE").unwrap_or_else(|| "/var/cache/handover-lab".into());
    // FNV-1a: the same in every build of this program, which std's hasher does not promise.
    let mix = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    let hash = recipe.join("\0").bytes().fold(0xcbf2_9ce4_8422_2325, mix);
    Path::new(&cache).join(format!("{what}-{hash:016x}"))
}

/// Builds under another name and renames: a tree that has its name is whole.
///
/// The lock is mmdebstrap's standard input, so that it is held until the last of the builders is gone,
/// also when we are killed.
fn build(recipe: &[String], suite: &str, path: &Path, lock: &File) -> Result<(), String> {
    let half = path.with_extension("half");
    if half.exists() {
        fs::remove_dir_all(&half).doing(half.display())?;
    }
    let mut command = Command::new("mmdebstrap");
    command.args(recipe).arg(suite).arg(&half).arg(mirror()?);
    let lock = lock.try_clone().doing("lock")?;
    let output = command.stdin(lock).stdout(Stdio::null()).output().doing("mmdebstrap")?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        let mut last: Vec<&str> = said.lines().rev().take(20).collect();
        last.reverse();
        return Err(format!("mmdebstrap {suite}: {}\n{}", output.status, last.join("\n")));
    }
    fs::rename(&half, path).doing(path.display())
}

/// Removes the trees of the same recipe and earlier weeks on which no machine stands.
fn clear_older(new: &Path) {
    let name = |path: &Path| path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let new_name = name(new);
    let Some((recipe, _week)) = new_name.rsplit_once('-').filter(|(recipe, _)| recipe.contains('-')) else {
        return;
    };
    let cache = new.parent().and_then(|cache| fs::read_dir(cache).ok());
    for old in cache.into_iter().flatten().flatten().map(|entry| entry.path()) {
        let is_older = old.is_dir() && name(&old).starts_with(&format!("{recipe}-")) && name(&old) < new_name;
        let lock_path = old.with_extension("lock");
        let lock = is_older.then(|| File::create(&lock_path).ok()).flatten();
        if lock.is_some_and(|lock| lock.try_lock().is_ok() && fs::remove_dir_all(&old).is_ok()) {
            let _ = fs::remove_file(lock_path);
        }
    }
}
