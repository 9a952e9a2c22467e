//! The environment of a program to be started, in which it will find its own pid.
//!
//! All memory is there before the child is: nothing in here allocates once the numbers are known.

use std::ffi::{CString, c_char};

/// One string of the new program's environment.
#[derive(Clone, Debug)]
pub(crate) enum Variable {
    /// `NAME=value` as it stands.
    Fixed(CString),
    /// The name of a variable whose value will be the child's own pid.
    OwnPid(String),
    /// The name of a variable whose value will be the id of the child's pidfd; left out where the
    /// kernel has none (before Linux 6.9).
    OwnPidfdId(String),
}

/// Digits of the largest u64.
const DIGITS: usize = 20;

/// The environment as execve(2) wants it, with room in it for numbers that are not known yet.
pub(super) struct Environment {
    strings: Vec<(Vec<u8>, Option<Blank>)>,
    pointers: Vec<*const c_char>,
}

/// Which number belongs into a string, and where.
#[derive(Clone, Copy)]
struct Blank {
    at: usize,
    pidfd_id: bool,
}

impl Environment {
    /// The strings, with room for the numbers.
    pub(super) fn new(variables: &[Variable]) -> Self {
        let blank = |name: &str, pidfd_id| {
            let mut text = format!("{name}=").into_bytes();
            let at = text.len();
            text.resize(at + DIGITS + 1, 0);
            (text, Some(Blank { at, pidfd_id }))
        };
        let strings: Vec<_> = variables
            .iter()
            .map(|variable| match variable {
                Variable::Fixed(text) => (text.as_bytes_with_nul().to_vec(), None),
                Variable::OwnPid(name) => blank(name, false),
                Variable::OwnPidfdId(name) => blank(name, true),
            })
            .collect();
        let pointers = Vec::with_capacity(strings.len() + 1);
        Self { strings, pointers }
    }

    /// Writes the numbers in, of which 0 is none; allocates nothing.
    pub(super) fn fill(&mut self, pid: u64, pidfd_id: u64) -> *const *const c_char {
        for (text, blank) in &mut self.strings {
            let number = match blank {
                Some(blank) if blank.pidfd_id => pidfd_id,
                Some(_) => pid,
                None => 0,
            };
            if let Some(blank) = blank {
                if number == 0 {
                    continue;
                }
                write_decimal(number, &mut text[blank.at..]);
            }
            self.pointers.push(text.as_ptr().cast());
        }
        self.pointers.push(std::ptr::null());
        self.pointers.as_ptr()
    }
}

/// Writes `number` without leading zeroes and ends it with NUL; `text` holds `DIGITS + 1` bytes.
fn write_decimal(mut number: u64, text: &mut [u8]) {
    let mut digits = [0; DIGITS];
    let mut start = DIGITS;
    while number > 0 || start == DIGITS {
        start -= 1;
        digits[start] = b'0' + (number % 10) as u8;
        number /= 10;
    }
    let len = DIGITS - start;
    text[..len].copy_from_slice(&digits[start..]);
    text[len] = 0;
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ffi::CStr;

    #[test]
    fn numbers_are_written_as_pid_1_writes_them() {
        for number in [1, 10, 65_535, u64::MAX] {
            let mut text = [7; DIGITS + 1];
            write_decimal(number, &mut text);
            assert_eq!(CStr::from_bytes_until_nul(&text).unwrap().to_str().unwrap(), number.to_string());
        }
    }
}
