//! What a manager has of a unit: which files it read, and the values that came of them.

use std::collections::HashMap;
use std::path::PathBuf;
use std::time::Duration;

use zbus::fdo::PropertiesProxy;
use zbus::names::InterfaceName;
use zbus::{OwnedVariant, Variant};

use super::connect::{Bus, Error, Manager, Way};
use super::standin::Standin;

/// A unit as its manager has it.
#[derive(Clone, Debug, Default)]
pub struct Described {
    /// Its own name; it may have been asked for by an alias.
    pub name: String,
    /// LoadState=: `loaded`, `masked`, `bad-setting`, `error`.
    pub load_state: String,
    /// The file it was read from, then its drop-ins in the order in which they count.
    pub files: Vec<PathBuf>,
    /// The files have changed since.
    pub outdated: bool,
    /// The units that start it, and those that it starts.
    pub related: Vec<String>,
    /// Numbers, words and booleans of it, by systemd's names; booleans as yes and no.
    properties: HashMap<String, String>,
}

impl Described {
    /// A property as text.
    pub fn text(&self, name: &str) -> Option<String> {
        self.properties.get(name).cloned()
    }

    /// A property that is a number.
    pub fn number(&self, name: &str) -> Option<u64> {
        self.properties.get(name)?.parse().ok()
    }

    /// A property that is a span of time in microseconds; the inner None is infinity.
    pub fn span(&self, name: &str) -> Option<Option<Duration>> {
        let usec = self.number(name)?;
        Some((usec != u64::MAX).then(|| Duration::from_micros(usec)))
    }
}

impl Manager {
    /// What systemd calls its version; None for the stand-in, which has none of its own.
    pub async fn version(&self) -> Result<Option<String>, Error> {
        match &self.way {
            Way::Bus(bus) => {
                let version = bus.proxy().version().await;
                version.map(Some).map_err(|error| Error::from_call("the version of systemd", error))
            }
            Way::Standin(_) => Ok(None),
        }
    }

    /// What the manager has of a unit, which it reads if it has not yet. None if there is no such unit.
    pub async fn describe(&self, unit: &str) -> Result<Option<Described>, Error> {
        match &self.way {
            Way::Bus(bus) => of_bus(bus, unit).await,
            Way::Standin(standin) => of_standin(standin, unit).await,
        }
    }
}

async fn of_bus(bus: &Bus, unit: &str) -> Result<Option<Described>, Error> {
    let failed = |error| Error::from_call("reading the properties of a unit", error);
    let path = match bus.proxy().load_unit(unit).await {
        Ok(path) => path,
        // A name that no unit can have.
        Err(zbus::Error::MethodError(..)) => return Ok(None),
        Err(error) => return Err(failed(error)),
    };
    let proxy = bus.properties(&path).await.map_err(failed)?;
    let mut all = get_all(&proxy, "org.freedesktop.systemd1.Unit").await.map_err(failed)?;
    let kind = if unit.ends_with(".socket") { "Socket" } else { "Service" };
    let special = get_all(&proxy, &format!("org.freedesktop.systemd1.{kind}")).await;
    // A unit of another type has no such interface.
    all.extend(special.unwrap_or_default());
    let strings = |name: &str| all.get(name).map(strings).unwrap_or_default();
    let string = |name: &str| strings(name).into_iter().next().unwrap_or_default();
    if string("LoadState") == "not-found" {
        return Ok(None);
    }
    let files = [vec![string("FragmentPath")], strings("DropInPaths")].concat();
    Ok(Some(Described {
        name: string("Id"),
        load_state: string("LoadState"),
        files: files.into_iter().filter(|file| !file.is_empty()).map(PathBuf::from).collect(),
        outdated: all.get("NeedDaemonReload").is_some_and(|value| **value == Variant::Bool(true)),
        related: [strings("TriggeredBy"), strings("Triggers")].concat(),
        properties: all.iter().filter_map(|(name, value)| Some((name.clone(), plain(value)?))).collect(),
    }))
}

async fn get_all(
    proxy: &PropertiesProxy<'_>,
    interface: &str,
) -> zbus::Result<HashMap<String, OwnedVariant>> {
    let interface = InterfaceName::try_from(interface)?;
    Ok(proxy.get_all(interface).await?)
}

/// A string, or all strings of a list.
fn strings(value: &OwnedVariant) -> Vec<String> {
    match &**value {
        Variant::Str(text) => vec![text.to_string()],
        Variant::Array(list) => {
            let texts = list.iter().filter_map(|one| one.downcast_ref::<&str>().ok());
            texts.map(str::to_owned).collect()
        }
        _ => Vec::new(),
    }
}

/// A single value as text.
fn plain(value: &OwnedVariant) -> Option<String> {
    match &**value {
        Variant::Str(text) => Some(text.to_string()),
        Variant::Bool(on) => Some(if *on { "yes" } else { "no" }.to_owned()),
        Variant::U32(number) => Some(number.to_string()),
        Variant::U64(number) => Some(number.to_string()),
        Variant::I32(number) => Some(number.to_string()),
        _ => None,
    }
}

/// The stand-in shows fewer properties; as it has no defaults but the reader's, they are enough.
async fn of_standin(standin: &Standin, unit: &str) -> Result<Option<Described>, Error> {
    let shown = standin.show(unit).await?.properties;
    let text = |name: &str| shown.get(name).cloned().unwrap_or_default();
    if text("LoadState") == "not-found" {
        return Ok(None);
    }
    let words = |name: &str| text(name).split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    let files = [vec![text("FragmentPath")], words("DropInPaths")].concat();
    Ok(Some(Described {
        name: text("Id"),
        load_state: text("LoadState"),
        files: files.into_iter().filter(|file| !file.is_empty()).map(PathBuf::from).collect(),
        outdated: text("NeedDaemonReload") == "yes",
        related: [words("TriggeredBy"), words("Triggers")].concat(),
        properties: HashMap::from([("FileDescriptorStoreMax".into(), text("FileDescriptorStoreMax"))]),
    }))
}
