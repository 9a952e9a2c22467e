//! Bytes that belong to one request: whoever gets others knows that something was mixed up.

use std::sync::LazyLock;

/// Lines of letters, no two of them the same.
static LINES: LazyLock<String> = LazyLock::new(|| {
    let letter = |place: usize| if place % 251 == 250 { '\n' } else { char::from(b'a' + (place % 26) as u8) };
    (0..26 * 251).map(letter).collect()
});

/// `length` bytes of the request with this number, from `offset` on.
pub(crate) fn pattern(number: u64, offset: usize, length: usize) -> String {
    let period = LINES.len();
    let start = usize::try_from(number % period as u64).unwrap_or(0);
    let (mut place, mut text) = ((start + offset) % period, String::with_capacity(length));
    while text.len() < length {
        let end = period.min(place + length - text.len());
        text += &LINES[place..end];
        place = 0;
    }
    text
}
