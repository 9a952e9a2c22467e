//! Which services there are: for those who type their names.

use super::connect::{Error, Manager, Way};
use super::standin::unexpected;
use super::wire::{Listed, Reply, Request};

/// A service that the manager has loaded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loaded {
    /// Its name, with the suffix.
    pub name: String,
    /// Description=.
    pub description: String,
}

impl Manager {
    /// The services whose names begin with `prefix`, sorted by name; the error says why nobody can tell.
    pub async fn services_like(&self, prefix: &str) -> Result<Vec<Loaded>, Error> {
        let mut known: Vec<_> = match &self.way {
            Way::Bus(bus) => {
                let listed = bus.proxy().list_units_by_patterns(&[], &["*.service"]).await;
                let listed = listed.map_err(|e| Error::from_call("ListUnitsByPatterns", e))?;
                let loaded = listed.into_iter().filter(|unit| unit.2 == "loaded");
                loaded.map(|unit| Loaded { name: unit.0, description: unit.1 }).collect()
            }
            Way::Standin(standin) => match standin.ask(&Request::List).await? {
                Reply::Units { units } => {
                    let named = |unit: Listed| Loaded { name: unit.unit, description: unit.description };
                    units.into_iter().map(named).collect()
                }
                other => return Err(unexpected(&other)),
            },
        };
        known.retain(|unit| unit.name.starts_with(prefix) && unit.name.ends_with(".service"));
        known.sort_by(|one, other| one.name.cmp(&other.name));
        Ok(known)
    }
}
