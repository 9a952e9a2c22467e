//! A successor reads the service's credentials, also where the sandbox hides them from the process
//! that starts it.

use crate::web::Web;

const SANDBOX: &str =
    "[Service]\nSetCredential=token:secret\nDynamicUser=yes\nProtectSystem=strict\nPrivateTmp=yes\n";

on_every_systemd! {
    fn credentials_survive_upgrades_in_a_sandbox(systemd) {
        differs_on_standin!("it has no sandbox and no credentials, and says so of every setting");
        let web = Web::boot_with(systemd, SANDBOX);
        for _ in 0..2 {
            let pid = web.upgrade();
            let environment = web.machine.succeed(&["cat", &format!("/proc/{pid}/environ")]);
            let folder = environment.split('\0').find_map(|text| text.strip_prefix("CREDENTIALS_DIRECTORY=/proc/self/"));
            let token = format!("/proc/{pid}/{}/token", folder.unwrap());
            assert_eq!(web.machine.succeed(&["cat", &token]), "secret");
        }
    }
}
