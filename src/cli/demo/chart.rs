//! The picture of a show: requests a second by process over time, the longest waits below them, and the
//! moments at which something happened to the service. An SVG that is light or dark as its reader is.
//!
//! Pure: it makes a text of what was counted.

use std::fmt::{Display, Write};

use super::book::{BIN, Bin};
use super::course::{Course, Event, What};
use super::words::{grouped, milliseconds, outcome};

const STYLE: &str = include_str!("chart.css");

/// Colours in [`STYLE`].
const COLOURS: usize = 8;

/// The whole picture.
const WIDTH: f64 = 960.0;
const HEIGHT: f64 = 520.0;

/// From where to where time runs.
const LEFT: f64 = 72.0;
const RIGHT: f64 = 936.0;

/// Where the words of events stand, and where their lines begin.
const WORDS: f64 = 92.0;
const MARKS: f64 = 114.0;

/// The upper part: requests a second.
const RATES: (f64, f64) = (144.0, 380.0);

/// The lower part: waits, from a tenth of a millisecond to a second, ten times more a step.
const WAITS: (f64, f64) = (412.0, 480.0);
const SHORTEST: f64 = 0.0001;
const STEPS: f64 = 4.0;

/// A process has room for its number if it is as wide as this.
const ROOM_FOR_PID: f64 = 46.0;

/// The picture, as a file's contents.
pub(super) fn svg(course: &Course) -> String {
    let bins = course.book.bins();
    let sums = bins.iter().map(|bin| bin.answers.iter().sum::<u32>());
    let chart = Chart { course, bins, seconds: course.took.as_secs_f64().max(1.0), most: rate(sums.max()) };
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" \
         aria-labelledby=\"title\">\n<style>\n{STYLE}</style>\n\
         <rect class=\"paper\" x=\".5\" y=\".5\" width=\"{}\" height=\"{}\" rx=\"10\"/>\n",
        WIDTH - 1.0,
        HEIGHT - 1.0
    );
    // Writing to a String cannot fail, here and below.
    let _ = writeln!(svg, "<title id=\"title\">{}</title>", Escaped(&chart.title()));
    text(&mut svg, "title", 28.0, 42.0, &chart.title());
    text(&mut svg, "sub", 28.0, 64.0, &outcome(course));
    chart.grid(&mut svg);
    chart.processes(&mut svg);
    chart.waits(&mut svg);
    chart.marks(&mut svg);
    svg + "</svg>\n"
}

/// What is drawn, and how large it is.
struct Chart<'a> {
    course: &'a Course,
    bins: &'a [Bin],
    seconds: f64,
    /// The most requests in a second.
    most: f64,
}

impl Chart<'_> {
    fn title(&self) -> String {
        let book = &self.course.book;
        match book.losses() {
            0 => format!("{} requests, none lost", grouped(book.requests())),
            lost => format!("{} requests, {} lost", grouped(book.requests()), grouped(lost)),
        }
    }

    /// Where a moment is from left to right.
    fn x(&self, seconds: f64) -> f64 {
        LEFT + (RIGHT - LEFT) * seconds / self.seconds
    }

    /// Where the middle of a column is.
    fn middle(&self, bin: usize) -> f64 {
        self.x((bin as f64 + 0.5) * BIN.as_secs_f64()).min(RIGHT)
    }

    /// Where so many answers in a column are from top to bottom.
    fn y(&self, answers: u32) -> f64 {
        let share = rate(Some(answers)) / ceiling(self.most);
        RATES.1 - (RATES.1 - RATES.0) * share
    }

    /// The axes, their lines and their numbers.
    fn grid(&self, svg: &mut String) {
        let top = ceiling(self.most);
        for line in 0..=4 {
            let share = f64::from(line) / 4.0;
            let y = RATES.1 - (RATES.1 - RATES.0) * share;
            level(svg, y, &grouped((top * share).round() as u64));
        }
        for (step, name) in [(0, "0.1 ms"), (1, "1 ms"), (2, "10 ms"), (3, "0.1 s"), (4, "1 s")] {
            level(svg, WAITS.1 - (WAITS.1 - WAITS.0) * f64::from(step) / STEPS, name);
        }
        text(svg, "word", 28.0, RATES.0 - 13.0, "requests / s");
        text(svg, "word", 28.0, WAITS.0 - 11.0, "longest wait for an answer");
        let step = if self.seconds > 16.0 { 2 } else { 1 };
        for second in (0..).step_by(step).take_while(|&second| f64::from(second) <= self.seconds) {
            let x = self.x(f64::from(second));
            let _ = writeln!(svg, "<path class=\"axis\" d=\"M{x:.1} {:.1}v5\"/>", WAITS.1);
            let unit = if second == 0 { " s" } else { "" };
            text(svg, "mid", x, WAITS.1 + 20.0, &format!("{second}{unit}"));
        }
    }

    /// A layer for each process, upon those of the older ones.
    fn processes(&self, svg: &mut String) {
        let mut floor = vec![0; self.bins.len()];
        for (place, pid) in self.course.book.pids().iter().enumerate() {
            let of = |bin: &Bin| bin.answers.get(place).copied().unwrap_or(0);
            let Some(first) = self.bins.iter().position(|bin| of(bin) > 0) else { continue };
            let last = self.bins.iter().rposition(|bin| of(bin) > 0).unwrap_or(first);
            let span = first.saturating_sub(1)..=(last + 1).min(self.bins.len() - 1);
            let point = |bin: usize, answers: u32| format!("{:.1} {:.1}", self.middle(bin), self.y(answers));
            let roof = span.clone().map(|bin| point(bin, floor[bin] + of(&self.bins[bin])));
            let below = span.clone().rev().map(|bin| point(bin, floor[bin]));
            let outline = roof.chain(below).collect::<Vec<_>>().join("L");
            let _ = writeln!(svg, "<path class=\"p{}\" d=\"M{outline}z\"/>", place % COLOURS);
            span.for_each(|bin| floor[bin] += of(&self.bins[bin]));
            let (from, to) = (self.middle(first), self.middle(last));
            if to - from >= ROOM_FOR_PID {
                let word = if place == 0 { format!("pid {pid}") } else { pid.to_string() };
                text(svg, "pid", from + 8.0, RATES.1 - 10.0, &word);
            }
        }
    }

    /// A line for each column, as high as the longest wait that ended in it.
    fn waits(&self, svg: &mut String) {
        let width = (self.x(BIN.as_secs_f64()) - LEFT) * 0.7;
        let mut lines = String::new();
        for (place, bin) in self.bins.iter().enumerate().filter(|(_, bin)| !bin.longest.is_zero()) {
            let share = (bin.longest.as_secs_f64() / SHORTEST).log10().clamp(0.04, STEPS) / STEPS;
            let height = (WAITS.1 - WAITS.0) * share;
            let _ = write!(lines, "M{:.1} {:.1}v-{height:.1}", self.middle(place), WAITS.1);
        }
        let _ = writeln!(svg, "<path class=\"wait\" stroke-width=\"{width:.1}\" d=\"{lines}\"/>");
    }

    /// A line for each thing that happened, with two words above it.
    fn marks(&self, svg: &mut String) {
        for event in &self.course.events {
            let Some((what, how, bad)) = label(event) else { continue };
            let bad = if bad { " bad" } else { "" };
            let x = self.x(event.at.as_secs_f64());
            let _ = writeln!(svg, "<path class=\"mark{bad}\" d=\"M{x:.1} {MARKS}V{:.1}\"/>", WAITS.1);
            text(svg, &format!("word mid{bad}"), x, WORDS, &what);
            text(svg, &format!("mid{bad}"), x, WORDS + 15.0, &how);
        }
    }
}

/// What stands above an event, in two lines, and whether it is one that should frighten.
fn label(event: &Event) -> Option<(String, String, bool)> {
    match &event.what {
        What::Upgraded { took, .. } => Some(("upgrade".to_owned(), milliseconds(*took), false)),
        What::Failed { .. } => Some(("bad version".to_owned(), "refused".to_owned(), true)),
        What::Killed { silence, .. } => Some(("kill -9".to_owned(), milliseconds(*silence), true)),
        What::Started { .. } | What::Stopped { .. } => None,
    }
}

/// So many answers in a column, in a second.
fn rate(answers: Option<u32>) -> f64 {
    f64::from(answers.unwrap_or(0)) / BIN.as_secs_f64()
}

/// A round number that is not below this one, and has round quarters.
fn ceiling(most: f64) -> f64 {
    let most = most.max(100.0);
    let magnitude = 10_f64.powf(most.log10().floor());
    let steps = [1.0, 1.2, 1.6, 2.0, 2.4, 3.2, 4.0, 4.8, 6.0, 8.0, 10.0];
    let step = steps.iter().find(|&&step| step * magnitude >= most).unwrap_or(&10.0);
    step * magnitude
}

/// A line from left to right, and what it stands for.
fn level(svg: &mut String, y: f64, name: &str) {
    let _ = writeln!(svg, "<path class=\"grid\" d=\"M{LEFT} {y:.1}H{RIGHT}\"/>");
    text(svg, "end", LEFT - 8.0, y + 4.0, name);
}

fn text(svg: &mut String, class: &str, x: f64, y: f64, words: &str) {
    let _ = writeln!(svg, "<text class=\"{class}\" x=\"{x:.1}\" y=\"{y:.1}\">{}</text>", Escaped(words));
}

/// Words as they may stand in XML.
struct Escaped<'a>(&'a str);

impl Display for Escaped<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.chars().try_for_each(|c| match c {
            '&' => f.write_str("&amp;"),
            '<' => f.write_str("&lt;"),
            '>' => f.write_str("&gt;"),
            '"' => f.write_str("&quot;"),
            // XML 1.0 has no way to write them.
            c if c.is_control() => f.write_char(' '),
            c => f.write_char(c),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::book::Book;
    use super::super::course::sample;
    use super::*;
    use proptest::prelude::*;
    use roxmltree::Document;
    use std::time::Duration;

    /// What is in the elements of this name and class.
    fn all<'a>(svg: &'a Document<'_>, name: &str, class: &str) -> Vec<&'a str> {
        let ours = |node: &roxmltree::Node<'_, '_>| {
            node.has_tag_name(name)
                && node.attribute("class").is_some_and(|all| all.split(' ').any(|one| one == class))
        };
        let found = svg.descendants().filter(ours);
        found.map(|node| node.text().or_else(|| node.attribute("d")).unwrap_or_default()).collect()
    }

    #[test]
    fn it_is_well_formed_and_has_a_layer_for_each_process_and_a_mark_for_each_event() {
        let svg = svg(&sample());
        let svg = Document::parse(&svg).unwrap();
        for layer in ["p0", "p1", "p2", "p3"] {
            assert_eq!(all(&svg, "path", layer).len(), 1, "{layer}");
        }
        assert_eq!(all(&svg, "path", "mark").len(), 4);
        assert_eq!(all(&svg, "text", "pid"), ["pid 4711", "4720", "4731", "4740"]);
        let words = all(&svg, "text", "word");
        assert!(["upgrade", "bad version", "kill -9"].iter().all(|word| words.contains(word)), "{words:?}");
        assert_eq!(all(&svg, "text", "bad"), ["bad version", "refused", "kill -9", "120 ms"]);
        assert!(all(&svg, "text", "title")[0].ends_with(" requests, none lost"));
    }

    #[test]
    fn every_class_has_a_colour_in_light_and_the_page_is_dark_where_the_reader_is() {
        let (light, dark) = STYLE.split_once("prefers-color-scheme: dark").unwrap();
        for class in ["paper", "title", "grid", "axis", "mark", "bad", "pid", "wait", "p0", "p7"] {
            assert!(light.contains(&format!(".{class} {{")), "{class}");
        }
        assert!(dark.contains(".paper {") && dark.contains("text {"));
        assert!(!STYLE.contains(['<', '&']), "it stands in XML as it is");
    }

    #[test]
    fn words_cannot_break_out() {
        assert_eq!(Escaped("<a b=\"c\">&\u{1b}").to_string(), "&lt;a b=&quot;c&quot;&gt;&amp; ");
    }

    #[test]
    fn an_axis_ends_at_a_round_number() {
        for (most, top) in [(0.0, 100.0), (5240.0, 6000.0), (99.0, 100.0), (1600.0, 1600.0), (1601.0, 2000.0)]
        {
            assert!((ceiling(most) - top).abs() < 1e-6, "{most}: {}", ceiling(most));
        }
    }

    #[test]
    fn a_show_in_which_nothing_happened_has_a_picture() {
        let (events, trouble) = (Vec::new(), Some("no stand-in".to_owned()));
        let course = Course { events, book: Book::new(1), took: Duration::ZERO, trouble };
        assert!(Document::parse(&svg(&course)).is_ok());
    }

    proptest! {
        #[test]
        fn nothing_is_drawn_outside(milliseconds in 4005..60_000u64) {
            let took = Duration::from_millis(milliseconds);
            let svg = svg(&Course { took, ..sample() });
            let svg = Document::parse(&svg).unwrap();
            for class in ["p0", "p1", "p2", "p3"] {
                for point in all(&svg, "path", class)[0].trim_matches(['M', 'z']).split('L') {
                    let (x, y) = point.split_once(' ').unwrap();
                    prop_assert!((LEFT..=RIGHT).contains(&x.parse().unwrap()));
                    prop_assert!((RATES.0..=RATES.1).contains(&y.parse().unwrap()));
                }
            }
        }
    }
}
