//! The fields of messages, as bytes and back: numbers of 8 bytes, texts behind their length; little endian.
//!
//! Pure. It never believes what is announced before it has arrived.

use super::{Draining, Garbled, Withdrawal};
use crate::upgrade::failure::{Failure, Reason};

/// Puts fields one behind the other.
pub(in crate::upgrade) struct Writer(pub(in crate::upgrade) Vec<u8>);

impl Writer {
    pub(in crate::upgrade) fn new(kind: u8) -> Self {
        Self(vec![kind])
    }

    pub(in crate::upgrade) fn number(mut self, number: u64) -> Self {
        self.0.extend(number.to_le_bytes());
        self
    }

    pub(in crate::upgrade) fn pid(self, pid: i32) -> Self {
        self.number(u64::from(pid.cast_unsigned()))
    }

    pub(in crate::upgrade) fn bytes(self, bytes: &[u8]) -> Self {
        let mut this = self.number(bytes.len() as u64);
        this.0.extend(bytes);
        this
    }

    pub(in crate::upgrade) fn list(self, items: &[impl AsRef<[u8]>]) -> Self {
        items.iter().fold(self.number(items.len() as u64), |this, item| this.bytes(item.as_ref()))
    }

    pub(in crate::upgrade) fn failure(self, failure: &Failure) -> Self {
        self.number(u64::from(failure.reason.exit_code())).pid(failure.errno).bytes(failure.detail.as_bytes())
    }

    pub(in crate::upgrade) fn withdrawal(self, withdrawal: &Withdrawal) -> Self {
        withdrawal.places.iter().fold(self.number(withdrawal.batch), |this, word| this.number(*word))
    }

    pub(in crate::upgrade) fn draining(self, draining: &Draining) -> Self {
        self.pid(draining.pid).number(draining.in_flight).number(draining.left_ms)
    }
}

/// Takes fields off the front of untrusted bytes.
pub(in crate::upgrade) struct Reader<'a>(pub(in crate::upgrade) &'a [u8]);

impl<'a> Reader<'a> {
    pub(in crate::upgrade) fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    pub(in crate::upgrade) fn byte(&mut self) -> Result<u8, Garbled> {
        let (byte, rest) = self.0.split_first().ok_or(Garbled::Short(0))?;
        self.0 = rest;
        Ok(*byte)
    }

    pub(in crate::upgrade) fn number(&mut self) -> Result<u64, Garbled> {
        let (number, rest) = self.0.split_first_chunk().ok_or(Garbled::Short(self.0.len()))?;
        self.0 = rest;
        Ok(u64::from_le_bytes(*number))
    }

    /// A number of 16 bits; a larger one is a version that nobody has.
    pub(in crate::upgrade) fn version(&mut self) -> Result<u16, Garbled> {
        Ok(u16::try_from(self.number()?).unwrap_or(u16::MAX))
    }

    /// A number of 32 bits; a larger one is a version that nobody has.
    pub(in crate::upgrade) fn word(&mut self) -> Result<u32, Garbled> {
        Ok(u32::try_from(self.number()?).unwrap_or(u32::MAX))
    }

    /// A pid or an errno; one that does not fit is nobody's.
    pub(in crate::upgrade) fn pid(&mut self) -> Result<i32, Garbled> {
        Ok(i32::try_from(self.number()?).unwrap_or(-1))
    }

    pub(in crate::upgrade) fn bytes(&mut self) -> Result<&'a [u8], Garbled> {
        let len = usize::try_from(self.number()?).unwrap_or(usize::MAX);
        let (bytes, rest) = self.0.split_at_checked(len).ok_or(Garbled::Short(self.0.len()))?;
        self.0 = rest;
        Ok(bytes)
    }

    /// A list. What is announced is believed only as it arrives: each item takes 8 bytes at least.
    pub(in crate::upgrade) fn list<T>(
        &mut self,
        item: impl Fn(&[u8]) -> Result<T, Garbled>,
    ) -> Result<Vec<T>, Garbled> {
        let announced = self.number()?;
        let mut items = Vec::new();
        for _ in 0..announced {
            items.push(item(self.bytes()?)?);
        }
        Ok(items)
    }

    pub(in crate::upgrade) fn failure(&mut self) -> Result<Failure, Garbled> {
        let number = u8::try_from(self.number()?).unwrap_or(0);
        let reason = Reason::from_exit_code(number).ok_or(Garbled::Unknown { what: "reason", number })?;
        let errno = self.pid()?;
        Ok(Failure { reason, errno, detail: text(self.bytes()?)? })
    }

    pub(in crate::upgrade) fn draining(&mut self) -> Result<Draining, Garbled> {
        Ok(Draining { pid: self.pid()?, in_flight: self.number()?, left_ms: self.number()? })
    }

    pub(in crate::upgrade) fn withdrawal(&mut self) -> Result<Withdrawal, Garbled> {
        let batch = self.number()?;
        let places = [self.number()?, self.number()?, self.number()?, self.number()?];
        Ok(Withdrawal { batch, places })
    }

    /// Items up to the end of the message.
    pub(in crate::upgrade) fn rest<T>(
        &mut self,
        item: impl Fn(&mut Self) -> Result<T, Garbled>,
    ) -> Result<Vec<T>, Garbled> {
        let mut items = Vec::new();
        while !self.0.is_empty() {
            items.push(item(self)?);
        }
        Ok(items)
    }

    /// The message, if nothing is left behind it.
    pub(in crate::upgrade) fn end<T>(self, message: T) -> Result<T, Garbled> {
        if self.0.is_empty() { Ok(message) } else { Err(Garbled::Long(self.0.len())) }
    }
}

/// A text in UTF-8.
pub(in crate::upgrade) fn text(bytes: &[u8]) -> Result<String, Garbled> {
    String::from_utf8(bytes.to_vec()).map_err(|_| Garbled::Text)
}
