//! The names under which PID 1 holds things for handover itself. Every other name is a service's own,
//! or a stranger's.

/// What the connections' names begin with. All names together are one string of bounded length, see
/// `bounds`, so this is short.
pub(crate) const CONNECTION: &str = "ho.";

/// The state file.
pub(crate) const STATE: &str = "handover.state";

/// The record.
pub(crate) const RECORD: &str = "handover.record";

/// What the names of canaries begin with.
pub(crate) const CANARY: &str = "handover.canary.";

/// The base in which ids are written.
const BASE: u32 = 36;

/// The name of the connection `id`: `ho.` and the number in base 36.
pub(crate) fn connection(id: u64) -> String {
    let mut digits = Vec::new();
    let mut rest = id;
    loop {
        digits.extend(char::from_digit((rest % u64::from(BASE)) as u32, BASE));
        rest /= u64::from(BASE);
        if rest == 0 {
            break;
        }
    }
    let digits: String = digits.iter().rev().collect();
    format!("{CONNECTION}{digits}")
}

/// The id of the connection that is called so; `None` for what [`connection`] does not write.
pub(crate) fn connection_id(name: &str) -> Option<u64> {
    let id = u64::from_str_radix(name.strip_prefix(CONNECTION)?, BASE).ok()?;
    (connection(id) == name).then_some(id)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::activation::{check_name, is_reserved};
    use proptest::prelude::*;

    #[test]
    fn all_names_are_reserved_and_fit_for_pid_1() {
        for name in [STATE, RECORD, CANARY, &connection(0), &connection(u64::MAX)] {
            assert!(is_reserved(name) && check_name(name).is_ok(), "{name}");
        }
        assert_eq!((connection(0), connection(36)), ("ho.0".into(), "ho.10".into()));
    }

    #[test]
    fn what_looks_like_a_connection_is_none() {
        for name in
            ["ho.", "ho.+1", "ho.01", "ho.A", "ho.-1", "ho.1 ", "h.1", "ho.zzzzzzzzzzzzzz", "handover.1"]
        {
            assert_eq!(connection_id(name), None, "{name}");
        }
    }

    proptest! {
        #[test]
        fn an_id_is_read_as_it_was_written(id: u64) {
            prop_assert_eq!(connection_id(&connection(id)), Some(id));
        }

        #[test]
        fn no_name_is_too_strange(name: String) {
            if let Some(id) = connection_id(&name) {
                prop_assert_eq!(connection(id), name);
            }
        }
    }
}
