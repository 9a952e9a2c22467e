//! What a service gets of variables: its words and its environment, by running it.

use std::path::Path;

use handover::unit::{Host, Service, Unit, UnitName, read_environment_file};

use crate::lab::{Machine, Systemd};

/// Words with variables, and what became of them.
const VARIABLES: &str = r#"
[Service]
Type=oneshot
Environment=T_ONE=1 "T_WORDS=two  words 'quoted one' back\\slash" T_EMPTY= T_OVER=environment
EnvironmentFile=-/etc/default/missing
EnvironmentFile=/etc/default/tricky
StandardOutput=append:/run/variables
ExecStart=/usr/bin/printf [%%s]\n $T_ONE ${T_ONE} x${T_ONE}y x$T_ONE $T_WORDS ${T_WORDS} "$T_WORDS" $T_EMPTY a \
    ${T_EMPTY} $T_UNSET b ${T_UNSET} $$T_ONE $${T_ONE} $ c$ $$ ${T_ONE ${} ${T_ONE}${T_ONE} $T_ONE$T_ONE \
    ${T-ONE} $1 ${1} $T_SINGLE $T_DOUBLE $T_UNCLOSED $T_BACK end
ExecStart=/usr/bin/printf \n
ExecStart=/usr/bin/env -0
"#;

/// A file of EnvironmentFile=, with what a shell would and would not read.
const ENVIRONMENT_FILE: &str = r#"
# a comment \
T_PLAIN=a value   
; another
T_SPACES =  around the sign
T_OVER="from the file"
T_SINGLE='one $T_ONE \n "x" '"and more" bare
T_DOUBLE="a \"b\" \$c \\ \n \`d"
T_BACK=a\ b\nc\\d \
  continued
T_LINES="first
second"
T_HASH=a#b # c
T_TRAILING="kept "   
T_TWICE=1
T_TWICE=2
T-BAD=1
export T_EXPORTED=1
1T=bad
no assignment
T_CONTINUED=a\
b
T_SEMI=a;b
T_EQUALS=a=b=c
T_EMPTY2=
T_QUOTED_EMPTY=""
T_UNCLOSED='a "b
T_LAST=inside
"#;

on_real_systemd! {
    fn variables_are_what_a_service_gets(systemd) {
        let machine = Machine::boot(systemd);
        machine.push("/etc/default/tricky", ENVIRONMENT_FILE, 0o644);
        machine.unit("variables.service", VARIABLES);
        machine.succeed(&["systemctl", "start", "variables"]);
        let theirs = machine.succeed(&["cat", "/run/variables"]);
        let name = UnitName::parse("variables.service").unwrap();
        let files = [("variables.service".into(), VARIABLES.into())];
        let mut findings = Vec::new();
        let unit = Unit::read(name, Host::default().into(), &files, &mut findings);
        let service = Service::read(&unit, &mut findings);
        assert_eq!(findings, []);
        let file = Path::new("/etc/default/tricky");
        let from_file = read_environment_file(file, ENVIRONMENT_FILE.as_bytes(), &mut findings);
        let refused: Vec<_> = findings.iter().map(|finding| finding.place.as_ref().unwrap().line).collect();
        assert_eq!(refused, [17, 18, 19]);
        let mut environment = service.exec.environment.clone();
        for (name, value) in from_file {
            environment.retain(|(known, _)| *known != name);
            environment.push((name, value));
        }
        // What the first command wrote: every word in brackets; and the second: the variables.
        let words = service.exec_start[0].arguments(&environment).words;
        let mut ours: String = words[2..].iter().map(|word| format!("[{word}]\n")).collect();
        let mut sorted: Vec<_> = environment.iter().map(|(name, value)| format!("{name}={value}")).collect();
        sorted.sort();
        ours += &sorted.join("\0");
        if systemd == Systemd::V252 {
            // Before 254 a backslash at the end of a comment made a comment of the next line.
            assert!(ours.contains("T_PLAIN=a value\0"));
            ours = ours.replace("T_PLAIN=a value\0", "");
        }
        let (brackets, variables) = theirs.split_once("\n\n").unwrap();
        let mut variables: Vec<_> = variables.split('\0').filter(|pair| pair.starts_with("T_")).collect();
        variables.sort_unstable();
        assert_eq!(ours, format!("{brackets}\n{}", variables.join("\0")));
    }
}
