//! Figures, and how they are told.

use std::time::Duration;

/// Tells each figure as soon as it is there, and remembers whether every promise was kept.
pub(crate) struct Table {
    kept: bool,
}

/// One thing that was measured.
pub(crate) struct Row<'a> {
    /// What it is.
    pub(crate) what: &'a str,
    /// What was measured.
    pub(crate) measured: String,
    /// What it was compared with.
    pub(crate) beside: String,
    /// Measured by compared, where that means something.
    pub(crate) ratio: Option<f64>,
    /// What is promised, and whether it is kept; nothing is promised of what is only told.
    pub(crate) bound: Option<(&'static str, bool)>,
}

impl Table {
    /// Prints the head.
    pub(crate) fn begin() -> Self {
        line(["what", "measured", "beside", "ratio", "bound", ""]);
        Self { kept: true }
    }

    /// Prints a row.
    pub(crate) fn add(&mut self, row: &Row<'_>) {
        let ratio = row.ratio.map_or_else(String::new, |ratio| format!("{ratio:.3}"));
        let (bound, verdict) = match row.bound {
            Some((bound, true)) => (bound, "kept"),
            Some((bound, false)) => (bound, "BROKEN"),
            None => ("", ""),
        };
        self.kept &= row.bound.is_none_or(|(_, kept)| kept);
        line([row.what, &row.measured, &row.beside, &ratio, bound, verdict]);
    }

    /// Says why something was not measured; nothing is broken by that.
    pub(crate) fn skip(&mut self, what: &str, why: &str) {
        println!("{what:<50} skipped: {why}");
    }

    /// Whether every promise was kept.
    pub(crate) fn all_kept(&self) -> bool {
        self.kept
    }
}

fn line(cells: [&str; 6]) {
    let [what, measured, beside, ratio, bound, verdict] = cells;
    let text = format!("{what:<50} {measured:>9}  {beside:<26} {ratio:>5}  {bound:<9} {verdict}");
    println!("{}", text.trim_end());
}

/// The value in the middle.
pub(crate) fn median<T: Copy + PartialOrd>(values: &[T]) -> T {
    quantile(values, 0.5)
}

/// The value that `share` of all are not above.
pub(crate) fn quantile<T: Copy + PartialOrd>(values: &[T], share: f64) -> T {
    let mut sorted = values.to_vec();
    sorted.sort_by(|a, b| a.partial_cmp(b).expect("figures can be compared"));
    let last = sorted.len().checked_sub(1).expect("something was measured");
    sorted[(last as f64 * share).round() as usize]
}

/// For people.
pub(crate) fn milliseconds(time: Duration) -> String {
    format!("{:.2} ms", time.as_secs_f64() * 1000.0)
}
