//! The manual pages, made of what `--help` says: `pages FOLDER` writes one for the program and one for each
//! of its commands.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use clap::Command;
use clap_mangen::Man;
use clap_mangen::roff::{Roff, roman};

fn main() -> io::Result<()> {
    let folder = std::env::args_os().nth(1).map(PathBuf::from);
    let folder = folder.ok_or_else(|| io::Error::other("usage: pages FOLDER"))?;
    fs::create_dir_all(&folder)?;
    let mut program = handover::cli::command();
    program.build();
    page(&program, &folder)?;
    program.get_subcommands().filter(|command| !command.is_hide_set()).try_for_each(|one| page(one, &folder))
}

/// Writes one page.
fn page(command: &Command, folder: &Path) -> io::Result<()> {
    let name = command.get_display_name().unwrap_or("handover").to_owned();
    let mut to = File::create(folder.join(format!("{name}.1")))?;
    let man =
        Man::new(command.clone()).source(concat!("handover ", env!("CARGO_PKG_VERSION"))).manual("handover");
    man.render_title(&mut to)?;
    man.render_name_section(&mut to)?;
    man.render_synopsis_section(&mut to)?;
    man.render_description_section(&mut to)?;
    man.render_options_section(&mut to)?;
    if command.has_subcommands() {
        man.render_subcommands_section(&mut to)?;
    }
    if let Some(text) = command.get_after_long_help().or_else(|| command.get_after_help()) {
        more(&text.to_string(), &mut to)?;
    }
    to.flush()
}

/// What follows the options: with a heading that ends in a colon, lines that stay as they are; else words.
fn more(text: &str, to: &mut dyn Write) -> io::Result<()> {
    let mut roff = Roff::new();
    match text.split_once(":\n") {
        Some((heading, lines)) => {
            let (title, note) = heading.split_once(" (").unwrap_or((heading, ""));
            roff.control("SH", [title.to_uppercase().as_str()]);
            if let Some(note) = note.strip_suffix(')') {
                roff.text([roman(format!("Of {note}."))]);
            }
            roff.control("nf", []);
            lines.lines().for_each(|line| _ = roff.text([roman(line)]));
            roff.control("fi", []);
        }
        None => {
            roff.control("SH", ["NOTES"]);
            roff.text([roman(text.replace('\n', " "))]);
        }
    }
    roff.to_writer(to)
}
