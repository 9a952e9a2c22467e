//! From assignments to the settings of systemd.exec(5).

use std::path::PathBuf;

use super::exec::{
    Directories, EnvironmentFile, Exec, Input, Limit, Output, PreserveMode, Resource, WorkingDirectory,
};
use super::line::{self, Line};
use super::value::{self, Value};
use super::words::Backslash;
use super::{UnitName, environment, specifier};

const LIMITS: [(&str, Resource); 16] = [
    ("LimitCPU", Resource::Cpu),
    ("LimitFSIZE", Resource::FileSize),
    ("LimitDATA", Resource::Data),
    ("LimitSTACK", Resource::Stack),
    ("LimitCORE", Resource::Core),
    ("LimitRSS", Resource::Rss),
    ("LimitNOFILE", Resource::NoFile),
    ("LimitAS", Resource::AddressSpace),
    ("LimitNPROC", Resource::Processes),
    ("LimitMEMLOCK", Resource::MemoryLock),
    ("LimitLOCKS", Resource::Locks),
    ("LimitSIGPENDING", Resource::SignalsPending),
    ("LimitMSGQUEUE", Resource::MessageQueue),
    ("LimitNICE", Resource::Nice),
    ("LimitRTPRIO", Resource::RealTimePriority),
    ("LimitRTTIME", Resource::RealTimeTime),
];

const PRESERVE: [(&str, PreserveMode); 3] =
    [("no", PreserveMode::No), ("yes", PreserveMode::Yes), ("restart", PreserveMode::Restart)];

const INPUTS: [(&str, Input); 6] = [
    ("null", Input::Null),
    ("tty", Input::Tty),
    ("tty-force", Input::Tty),
    ("tty-fail", Input::Tty),
    ("socket", Input::Socket),
    ("data", Input::Data),
];

const OUTPUTS: [(&str, Output); 10] = [
    ("inherit", Output::Inherit),
    ("null", Output::Null),
    ("tty", Output::Tty),
    ("journal", Output::Journal),
    ("journal+console", Output::Journal),
    ("syslog", Output::Journal),
    ("syslog+console", Output::Journal),
    ("kmsg", Output::Kmsg),
    ("kmsg+console", Output::Kmsg),
    ("socket", Output::Socket),
];

impl Resource {
    /// Whether it is counted in bytes, and K, M and G stand for powers of 1024.
    pub(super) fn is_bytes(self) -> bool {
        use Resource::{AddressSpace, Core, Data, FileSize, MemoryLock, MessageQueue, Rss, Stack};
        matches!(self, FileSize | Data | Stack | Core | Rss | AddressSpace | MemoryLock | MessageQueue)
    }
}

impl Exec {
    /// Reads a directive of systemd.exec(5); false says that it is none, or none of those in [`Exec`].
    pub(super) fn read(&mut self, line: &mut Line<'_>) -> bool {
        match line.key() {
            "Environment" => self.environment(line),
            "EnvironmentFile" => self.environment_file(line),
            "PassEnvironment" => line.list(&mut self.pass_environment, Backslash::Next, variable),
            "UnsetEnvironment" => line.list(&mut self.unset_environment, Backslash::C, |word| {
                variable(word.split_once('=').map_or(word, |(name, _)| name)).map(|_| word.to_owned())
            }),
            "WorkingDirectory" => self.working_directory(line),
            "RootDirectory" => self.root_directory(line),
            "User" => account(line, &mut self.user),
            "Group" => account(line, &mut self.group),
            "SupplementaryGroups" => self.supplementary_groups(line),
            // A guess here would run the service as root.
            "DynamicUser" => match value::boolean(line.value()) {
                Ok(dynamic) => self.dynamic_user = dynamic,
                Err(why) => line.refuse(why),
            },
            "UMask" => line.set(&mut self.umask, value::mode),
            "Nice" => line.or_default(&mut self.nice, |text| value::within(text, -20, 19).map(Some)),
            "OOMScoreAdjust" => {
                line.or_default(&mut self.oom_score_adjust, |text| {
                    value::within(text, -1000, 1000).map(Some)
                });
            }
            "StandardInput" => stream(line, &mut self.standard_input, input),
            "StandardOutput" => stream(line, &mut self.standard_output, |text| output(text).map(Some)),
            "StandardError" => stream(line, &mut self.standard_error, |text| output(text).map(Some)),
            "SyslogIdentifier" => line.text(&mut self.syslog_identifier),
            "RuntimeDirectoryPreserve" => {
                line.set(&mut self.runtime_directory_preserve, |text| {
                    value::choice_or_boolean(text, &PRESERVE)
                });
            }
            "IgnoreSIGPIPE" => line.flag(&mut self.ignore_sigpipe),
            "NoNewPrivileges" => line.flag(&mut self.no_new_privileges),
            key if key.starts_with("Limit") => self.limit(line),
            _ => return self.directories(line),
        }
        true
    }

    /// What DynamicUser= implies: an account that is called as the unit is.
    pub(super) fn complete(&mut self, name: &UnitName) {
        if self.dynamic_user {
            let user = self.user.get_or_insert_with(|| name.prefix().to_owned());
            self.group.get_or_insert_with(|| user.clone());
        }
    }

    fn directories(&mut self, line: &mut Line<'_>) -> bool {
        match line.key() {
            "RuntimeDirectory" => folders(line, &mut self.runtime_directory),
            "RuntimeDirectoryMode" => line.set(&mut self.runtime_directory.mode, value::mode),
            "StateDirectory" => folders(line, &mut self.state_directory),
            "StateDirectoryMode" => line.set(&mut self.state_directory.mode, value::mode),
            "CacheDirectory" => folders(line, &mut self.cache_directory),
            "CacheDirectoryMode" => line.set(&mut self.cache_directory.mode, value::mode),
            "LogsDirectory" => folders(line, &mut self.logs_directory),
            "LogsDirectoryMode" => line.set(&mut self.logs_directory.mode, value::mode),
            "ConfigurationDirectory" => folders(line, &mut self.configuration_directory),
            "ConfigurationDirectoryMode" => line.set(&mut self.configuration_directory.mode, value::mode),
            _ => return false,
        }
        true
    }

    fn environment(&mut self, line: &mut Line<'_>) {
        if line.is_reset() {
            self.environment.clear();
        }
        for word in line.strict_words() {
            let Some(word) = line.resolve(&word) else { continue };
            match word.split_once('=') {
                Some((name, value)) if environment::is_name(name) => {
                    environment::set(&mut self.environment, name.to_owned(), value.to_owned());
                }
                _ => line.ignore(format_args!("{word:?} is no NAME=VALUE")),
            }
        }
    }

    fn environment_file(&mut self, line: &mut Line<'_>) {
        if line.is_reset() {
            return self.environment_files.clear();
        }
        let Some(text) = line.resolve(line.value()) else { return };
        let path = text.strip_prefix('-');
        match line::absolute(path.unwrap_or(&text)) {
            Ok(found) => {
                self.environment_files.push(EnvironmentFile { path: found, optional: path.is_some() });
            }
            Err(why) => line.ignore(why),
        }
    }

    fn supplementary_groups(&mut self, line: &mut Line<'_>) {
        if line.is_reset() {
            self.supplementary_groups.clear();
        }
        for word in line.plain_words() {
            match account_name(line, word) {
                Ok(name) => self.supplementary_groups.push(name),
                Err(why) => line.refuse(why),
            }
        }
    }

    fn root_directory(&mut self, line: &mut Line<'_>) {
        if line.is_reset() {
            self.root_directory = None;
            return;
        }
        match folder(line, line.value()) {
            Ok(path) => self.root_directory = Some(path),
            Err(why) => line.refuse(why),
        }
    }

    fn working_directory(&mut self, line: &mut Line<'_>) {
        let (optional, text) = match line.value().strip_prefix('-') {
            Some(rest) => (true, rest),
            None => (false, line.value()),
        };
        if line.is_reset() {
            self.working_directory = None;
        } else if text == "~" {
            self.working_directory = Some(WorkingDirectory { path: None, optional });
        } else {
            match folder(line, text) {
                Ok(path) => self.working_directory = Some(WorkingDirectory { path: Some(path), optional }),
                Err(why) if optional => line.ignore(why),
                Err(why) => line.refuse(why),
            }
        }
    }

    fn limit(&mut self, line: &mut Line<'_>) {
        let Some((_, resource)) = LIMITS.iter().find(|(key, _)| *key == line.key()) else { return };
        let mut limit = None::<Limit>;
        line.some(&mut limit, |text| value::limit(text, *resource));
        if let Some(limit) = limit {
            self.limits.retain(|(known, _)| known != resource);
            self.limits.push((*resource, limit));
        }
    }
}

fn variable(name: &str) -> Value<String> {
    environment::is_name(name).then(|| name.to_owned()).ok_or_else(|| "not the name of a variable".into())
}

/// User= and Group=: what is none makes the unit unusable, for it would run as root.
fn account(line: &mut Line<'_>, slot: &mut Option<String>) {
    if line.is_reset() {
        *slot = None;
        return;
    }
    match account_name(line, line.value()) {
        Ok(name) => *slot = Some(name),
        Err(why) => line.refuse(why),
    }
}

/// A name of a user or group that some system may have, or a number.
fn account_name(line: &Line<'_>, text: &str) -> Value<String> {
    let name = specifier::resolve(text, line.unit).map_err(|why| why.to_string())?;
    let spaced = name.starts_with(char::is_whitespace) || name.ends_with(char::is_whitespace);
    let bad = |c: char| c.is_control() || ":/".contains(c);
    let digits = name.chars().all(|c| c.is_ascii_digit());
    // -1 is how chown(2) says "nobody", in 16 and in 32 bits.
    let number_fits = name.parse::<u32>().is_ok_and(|id| id != u32::MAX && id != 0xffff);
    let fine = !name.is_empty()
        && !spaced
        && !name.contains(bad)
        && ![".", ".."].contains(&name.as_str())
        && !name.starts_with('-')
        && (!digits || number_fits);
    fine.then_some(name).ok_or_else(|| "wanted the name or number of an account".into())
}

/// An absolute path with its specifiers resolved.
fn folder(line: &Line<'_>, text: &str) -> Value<PathBuf> {
    let path = specifier::resolve(text, line.unit).map_err(|why| why.to_string())?;
    line::absolute(&path)
}

/// StandardInput= and its relatives: what follows `fd:` and `file:` has specifiers.
fn stream<T>(line: &mut Line<'_>, slot: &mut T, read: impl FnOnce(&str) -> Value<T>) {
    if let Some(text) = line.resolve(line.value()) {
        match read(&text) {
            Ok(value) => *slot = value,
            Err(why) => line.ignore(why),
        }
    }
}

/// The file of a stream, if `text` names one.
fn file(text: &str, kind: &str) -> Option<Value<PathBuf>> {
    text.strip_prefix(kind)?.strip_prefix(':').map(line::absolute)
}

fn input(text: &str) -> Value<Input> {
    if let Some(path) = file(text, "file") {
        return path.map(Input::File);
    }
    match text.strip_prefix("fd:") {
        Some(name) => descriptor(name).map(Input::Fd),
        None if text == "fd" => Ok(Input::Fd("stdin".to_owned())),
        None => value::choice(text, &INPUTS),
    }
}

fn output(text: &str) -> Value<Output> {
    let to_file = |kind, make: fn(PathBuf) -> Output| file(text, kind).map(|path| path.map(make));
    let to_file = to_file("file", Output::File)
        .or_else(|| to_file("append", Output::Append))
        .or_else(|| to_file("truncate", Output::Truncate));
    if let Some(output) = to_file {
        return output;
    }
    match text.strip_prefix("fd:") {
        Some(name) => descriptor(name).map(Output::Fd),
        None if text == "fd" => Ok(Output::Fd("stdout".to_owned())),
        None => value::choice(text, &OUTPUTS),
    }
}

/// The name of a descriptor, as FileDescriptorName= gives it.
pub(super) fn descriptor(name: &str) -> Value<String> {
    let fine = name.len() <= 255 && name.chars().all(|c| (' '..='~').contains(&c) && c != ':');
    fine.then(|| name.to_owned())
        .ok_or_else(|| "wanted a name of at most 255 letters, without a colon".into())
}

/// Adds relative paths of folders; `:` and a symlink, and flags, may follow each.
fn folders(line: &mut Line<'_>, slot: &mut Directories) {
    line.list(&mut slot.paths, Backslash::C, |word| {
        let source = word.split(':').next().unwrap_or_default();
        if source.is_empty() || source.starts_with('/') {
            return Err("wanted a relative path".into());
        }
        if source == "private" || source.starts_with("private/") {
            return Err("\"private\" is for DynamicUser= alone".into());
        }
        line::path(source)
    });
}
