//! The units as PID 1 has them: their files by the names that PID 1 gives, and its own defaults.

use std::collections::VecDeque;

use crate::manager::{Described, Error, Manager};
use crate::unit::{self, Host, Limit, Resource, Service, UnitName};

use super::Units;
use super::units::{NEITHER, NO_UNIT, Stale, is_checked};

/// Reads units as PID 1, or the stand-in, has them, and what belongs to them: the sockets of a service, the
/// service of a socket. What the manager adds to the files, its defaults for timeouts and limits, counts.
///
/// Errors: the manager cannot be asked. A unit that it does not know is among the
/// [problems](Units::problems).
pub async fn loaded(manager: &Manager, names: &[String]) -> Result<Units, Error> {
    let mut wanted: VecDeque<String> = names.iter().cloned().collect();
    let (mut unknown, mut described) = (Vec::new(), Vec::<(UnitName, Described)>::new());
    while let Some(name) = wanted.pop_front() {
        if described.iter().any(|(known, _)| known.as_str() == name) {
            continue;
        }
        let asked = names.contains(&name);
        let mut problem = |why: &str| {
            if asked {
                unknown.push(format!("{name}: {why}"));
            }
        };
        if !is_checked(&name) {
            problem(NEITHER);
            continue;
        }
        let Some(found) = manager.describe(&name).await? else {
            problem(NO_UNIT);
            continue;
        };
        if found.load_state == "masked" {
            problem("it is masked, and nothing of it counts");
            continue;
        }
        let Some(id) = UnitName::parse(&found.name) else { continue };
        if described.iter().any(|(known, _)| *known == id) {
            continue;
        }
        wanted.extend(found.related.iter().filter(|name| is_checked(name)).cloned());
        described.push((id, found));
    }
    let files: Vec<_> = described.iter().map(|(name, found)| (name.clone(), found.files.clone())).collect();
    let mut read = unit::load_files(&files, Host::current());
    let mut stale = Vec::new();
    for (name, found) in &described {
        if found.outdated {
            stale.push(Stale { unit: name.clone(), differs: None });
        }
        let service = read.services.iter_mut().find(|(known, _)| known == name);
        let document = read.units.iter().find(|unit| unit.name() == name);
        if let (Some((_, service)), Some(document)) = (service, document) {
            let sets =
                |keys: &[&str]| document.assignments().iter().any(|line| keys.contains(&line.key.as_str()));
            take_defaults(service, found, sets);
            let differs = differences(service, found).into_iter();
            stale.extend(differs.map(|differs| Stale { unit: name.clone(), differs: Some(differs) }));
        }
    }
    Ok(Units::of(read, unknown).with_stale(stale))
}

/// Puts in the manager's defaults where the unit `sets` nothing.
fn take_defaults(service: &mut Service, found: &Described, sets: impl Fn(&[&str]) -> bool) {
    if !sets(&["TimeoutStartSec", "TimeoutSec"]) {
        service.timeout_start = found.span("TimeoutStartUSec").unwrap_or(service.timeout_start);
    }
    if !sets(&["TimeoutStopSec", "TimeoutSec"]) {
        service.timeout_stop = found.span("TimeoutStopUSec").unwrap_or(service.timeout_stop);
    }
    if !sets(&["RestartSec"]) {
        service.restart_after = found.span("RestartUSec").unwrap_or(service.restart_after);
    }
    let limit = &mut service.common.start_limit;
    if !sets(&["StartLimitIntervalSec", "StartLimitInterval"]) {
        limit.interval = found.span("StartLimitIntervalUSec").unwrap_or(limit.interval);
    }
    if !sets(&["StartLimitBurst"]) {
        let burst = found.number("StartLimitBurst").and_then(|burst| u32::try_from(burst).ok());
        limit.burst = burst.unwrap_or(limit.burst);
    }
    let (soft, hard) = (found.number("LimitNOFILESoft"), found.number("LimitNOFILE"));
    if let (false, Some(soft), Some(hard)) = (sets(&["LimitNOFILE"]), soft, hard) {
        let finite = |number: u64| (number != u64::MAX).then_some(number);
        service.exec.limits.push((Resource::NoFile, Limit { soft: finite(soft), hard: finite(hard) }));
    }
}

/// Where PID 1 has something else than the files say, of what an upgrade depends on: files that were changed
/// without a `daemon-reload`, also such as NeedDaemonReload= does not notice.
fn differences(service: &Service, found: &Described) -> Vec<(&'static str, String, String)> {
    let mut differs = Vec::new();
    let mut compare = |key: &'static str, property: &str, ours: String| {
        if let Some(theirs) = found.text(property).filter(|theirs| *theirs != ours) {
            differs.push((key, ours, theirs));
        }
    };
    let flag = |on: bool| if on { "yes" } else { "no" }.to_owned();
    compare("FileDescriptorStoreMax", "FileDescriptorStoreMax", service.fd_store_max.to_string());
    compare("NonBlocking", "NonBlocking", flag(service.non_blocking));
    compare("RemainAfterExit", "RemainAfterExit", flag(service.remain_after_exit));
    compare("SendSIGKILL", "SendSIGKILL", flag(service.kill.send_sigkill));
    let spans = [
        ("TimeoutStartSec", "TimeoutStartUSec", service.timeout_start),
        ("TimeoutStopSec", "TimeoutStopUSec", service.timeout_stop),
        ("RestartSec", "RestartUSec", service.restart_after),
        ("StartLimitIntervalSec", "StartLimitIntervalUSec", service.common.start_limit.interval),
    ];
    let seconds = |span: Option<std::time::Duration>| match span {
        Some(span) => format!("{}s", span.as_secs_f64()),
        None => "infinity".to_owned(),
    };
    for (key, property, ours) in spans {
        if let Some(theirs) = found.span(property).filter(|theirs| *theirs != ours) {
            differs.push((key, seconds(ours), seconds(theirs)));
        }
    }
    differs
}
