//! Which files make a unit, by names alone: folders of drop-ins, templates. See systemd.unit(5).

use std::path::PathBuf;

use super::UnitName;

/// The folders whose `*.conf` files belong to a unit, of those in a search path: its own, those of its
/// template and its prefixes, and after all of them that of its type. What stands earlier wins where two
/// files have one name.
pub(super) fn drop_in_folders(search_path: &[PathBuf], name: &UnitName) -> Vec<PathBuf> {
    let mut own = Vec::new();
    with_relatives(name, &mut own);
    let kind = [format!("{}.d", name.kind())];
    let below = |names: &[String]| -> Vec<_> {
        search_path.iter().flat_map(|folder| names.iter().map(|name| folder.join(name))).collect()
    };
    [below(&own), below(&kind)].concat()
}

/// web-api@blue.service: itself, its template, web-.service, web-@blue.service, web-@.service.
fn with_relatives(name: &UnitName, folders: &mut Vec<String>) {
    let folder = format!("{name}.d");
    if folders.contains(&folder) {
        return;
    }
    folders.push(folder);
    let instance = name.instance().filter(|instance| !instance.is_empty());
    let template = instance.and_then(|_| name.template());
    let shorter = name.prefix().trim_end_matches('-').rfind('-').map(|dash| &name.prefix()[..=dash]);
    let shorter = shorter.and_then(|prefix| {
        let at = instance.map(|instance| format!("@{instance}")).unwrap_or_default();
        UnitName::parse(&format!("{prefix}{at}.{}", name.kind()))
    });
    for relative in [template, shorter].into_iter().flatten() {
        with_relatives(&relative, folders);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(name: &str) -> Vec<PathBuf> {
        drop_in_folders(&["".into()], &UnitName::parse(name).unwrap())
    }

    #[test]
    fn a_unit_has_folders_of_its_own_of_its_prefixes_and_of_its_type() {
        assert_eq!(
            of("web-api-v2.service"),
            ["web-api-v2.service.d", "web-api-.service.d", "web-.service.d", "service.d"].map(PathBuf::from)
        );
        assert_eq!(of("web-.socket"), ["web-.socket.d", "socket.d"].map(PathBuf::from));
        assert_eq!(of("a--b.socket"), ["a--b.socket.d", "a--.socket.d", "socket.d"].map(PathBuf::from));
    }

    #[test]
    fn an_instance_has_those_of_its_template_too() {
        assert_eq!(
            of("web-api@blue.service"),
            [
                "web-api@blue.service.d",
                "web-api@.service.d",
                "web-.service.d",
                "web-@blue.service.d",
                "web-@.service.d",
                "service.d"
            ]
            .map(PathBuf::from)
        );
    }

    #[test]
    fn the_folder_of_the_type_comes_after_all_others() {
        let folders =
            drop_in_folders(&["/etc".into(), "/usr".into()], &UnitName::parse("web.socket").unwrap());
        let wanted = ["/etc/web.socket.d", "/usr/web.socket.d", "/etc/socket.d", "/usr/socket.d"];
        assert_eq!(folders, wanted.map(PathBuf::from));
    }
}
