//! What a rule is, and how it becomes a finding.

use std::path::Path;
use std::sync::Arc;

use super::scene::{Ear, Scene, Way};
use super::{Finding, Mend, Severity, Version};

/// A row of the table of a theme.
#[derive(Debug)]
#[non_exhaustive]
pub struct Rule {
    /// Its name, which never changes.
    pub name: &'static str,
    /// How bad it is in a service of handover's; in any other it is a note.
    pub severity: Severity,
    /// Whose units it is about.
    pub whom: Whom,
    /// What it wants, as a sentence without its full stop.
    pub about: &'static str,
    /// The manual page, and the directive in it.
    pub manual: &'static str,
    /// What looks for it.
    pub(super) find: Find,
}

/// Whose units a rule is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whom {
    /// Services built on the library.
    Library,
    /// Services under `handover run`.
    Run,
    /// Both.
    Handover,
    /// Both, and every service with an FD store that is none of systemd's own.
    Storing,
    /// Every service.
    All,
}

/// The function that looks: pure, and about one thing.
#[derive(Clone, Copy, Debug)]
pub(super) enum Find {
    /// At a service, with its sockets.
    Service(fn(&Scene<'_>) -> Option<Wrong>),
    /// At a socket unit, with its service where that is known.
    Socket(fn(&Ear<'_>) -> Option<Wrong>),
    /// None looks: the reader of units has said it.
    Reader,
}

/// What a rule found.
#[derive(Debug)]
pub(super) struct Wrong {
    pub(super) place: Blame,
    pub(super) why: String,
    pub(super) mend: Option<Mend>,
}

/// Who is to blame.
#[derive(Clone, Debug)]
pub(super) struct Blame {
    pub(super) unit: String,
    pub(super) file: Arc<Path>,
    pub(super) line: Option<u32>,
}

impl Blame {
    /// What is wrong there, and the lines that mend it in a drop-in of this unit.
    pub(super) fn mended<const N: usize>(
        self,
        section: &'static str,
        lines: [&str; N],
        why: impl Into<String>,
    ) -> Wrong {
        let unit = self.unit.clone();
        self.mended_in(unit, section, lines, why)
    }

    /// The same, in a drop-in of another unit.
    pub(super) fn mended_in<const N: usize>(
        self,
        unit: String,
        section: &'static str,
        lines: [&str; N],
        why: impl Into<String>,
    ) -> Wrong {
        let lines = lines.map(str::to_owned).into();
        Wrong { place: self, why: why.into(), mend: Some(Mend { unit, section, lines, by_hand: false }) }
    }

    /// What is wrong there, and the lines to stand there instead.
    pub(super) fn replaced(self, section: &'static str, lines: Vec<String>, why: impl Into<String>) -> Wrong {
        let unit = self.unit.clone();
        Wrong { place: self, why: why.into(), mend: Some(Mend { unit, section, lines, by_hand: true }) }
    }
}

impl Rule {
    /// What is wrong with a service, if this rule is about it.
    pub(super) fn of_service(&self, scene: &Scene<'_>) -> Option<Finding> {
        let Find::Service(find) = self.find else { return None };
        let storing = scene.way != Way::Other || (scene.service.fd_store_max > 0 && !scene.is_of_systemd());
        let concerned = match self.whom {
            Whom::Storing => storing,
            whom => whom.includes(scene.way),
        };
        let wrong = concerned.then(|| find(scene)).flatten()?;
        Some(self.finding(wrong, scene.way, scene.version))
    }

    /// The same of a socket unit.
    pub(super) fn of_socket(&self, ear: &Ear<'_>) -> Option<Finding> {
        let Find::Socket(find) = self.find else { return None };
        let wrong = self.whom.includes(ear.way).then(|| find(ear)).flatten()?;
        Some(self.finding(wrong, ear.way, ear.version))
    }

    /// What was found, in a unit of such a service.
    pub(super) fn finding(&self, wrong: Wrong, way: Way, version: Version) -> Finding {
        let Wrong { place: Blame { unit, file, line }, why, mut mend } = wrong;
        if let Some(mend) = &mut mend {
            // What comes after our drop-in would win over it.
            mend.by_hand |= mend.unit == unit && line.is_some() && super::drop_in::is_later(&file);
        }
        let severity = if way == Way::Other { Severity::Note } else { self.severity };
        let (rule, manual) = (self.name, self.manual);
        Finding { rule, severity, unit, file, line, why, mend, manual, version }
    }
}

impl Whom {
    fn includes(self, way: Way) -> bool {
        match self {
            Self::Library => way == Way::Library,
            Self::Run => matches!(way, Way::Run(_)),
            Self::Handover | Self::Storing => way != Way::Other,
            Self::All => true,
        }
    }
}
