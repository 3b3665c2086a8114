//! Walks over encoded AMQP values before anything decodes them: what is nested too deeply, or announces more than there
//! is, would cost the decoder its stack or the hub its memory.

use super::Malformed;

/// How deep values may nest. Real messages need about six.
const DEPTH: usize = 32;
/// Elements of an array that take no bytes at all.
const EMPTY_ELEMENTS: usize = 1_024;

/// Length of the value at the start of `bytes`, all of it looked at.
///
/// # Errors
/// When it is cut short, nests too deeply, or its counts and sizes contradict each other.
pub(in crate::fronts::amqp) fn value_length(bytes: &[u8]) -> Result<usize, Malformed> {
    let mut rest = Rest(bytes);
    rest.value(DEPTH)?;
    Ok(bytes.len() - rest.0.len())
}

/// Checks that `bytes` are values, one after the other, such as the sections of a message.
///
/// # Errors
/// As [`value_length`].
pub(in crate::fronts::amqp) fn check_values(bytes: &[u8]) -> Result<(), Malformed> {
    let mut rest = Rest(bytes);
    while !rest.0.is_empty() {
        rest.value(DEPTH)?;
    }
    Ok(())
}

/// What is still to be looked at.
struct Rest<'a>(&'a [u8]);

impl<'a> Rest<'a> {
    fn value(&mut self, depth: usize) -> Result<(), Malformed> {
        match self.byte()? {
            0 => {
                let depth = depth.checked_sub(1).ok_or(Malformed)?;
                self.value(depth)?;
                self.value(depth)
            }
            code => self.content(code, depth),
        }
    }

    /// What follows the constructor `code`.
    fn content(&mut self, code: u8, depth: usize) -> Result<(), Malformed> {
        match code >> 4 {
            0x4 => Ok(()),
            width @ 0x5..=0x9 => self.take(1 << (width - 5)).map(drop),
            0xa => {
                let length = self.byte()?.into();
                self.take(length).map(drop)
            }
            0xb => {
                let length = self.number()?;
                self.take(length).map(drop)
            }
            kind @ 0xc..=0xf => {
                let depth = depth.checked_sub(1).ok_or(Malformed)?;
                let wide = kind & 1 == 1;
                let size = if wide { self.number()? } else { self.byte()?.into() };
                let mut inside = Rest(self.take(size)?);
                let count = if wide { inside.number()? } else { inside.byte()?.into() };
                match kind {
                    0xc | 0xd => inside.elements(count, depth),
                    _ => inside.array(count, depth),
                }
            }
            _ => Err(Malformed),
        }
    }

    fn elements(&mut self, count: usize, depth: usize) -> Result<(), Malformed> {
        if count > self.0.len() {
            return Err(Malformed);
        }
        for _ in 0..count {
            self.value(depth)?;
        }
        self.end()
    }

    fn array(&mut self, count: usize, depth: usize) -> Result<(), Malformed> {
        let mut code = self.byte()?;
        let mut depth = depth;
        while code == 0 {
            depth = depth.checked_sub(1).ok_or(Malformed)?;
            self.value(depth)?;
            code = self.byte()?;
        }
        let bound = if code >> 4 == 0x4 { EMPTY_ELEMENTS } else { self.0.len() };
        if count > bound {
            return Err(Malformed);
        }
        for _ in 0..count {
            self.content(code, depth)?;
        }
        self.end()
    }

    fn end(&self) -> Result<(), Malformed> {
        if self.0.is_empty() { Ok(()) } else { Err(Malformed) }
    }

    fn byte(&mut self) -> Result<u8, Malformed> {
        let (first, rest) = self.0.split_first().ok_or(Malformed)?;
        self.0 = rest;
        Ok(*first)
    }

    fn number(&mut self) -> Result<usize, Malformed> {
        let bytes = self.take(4)?.first_chunk().ok_or(Malformed)?;
        usize::try_from(u32::from_be_bytes(*bytes)).map_err(|_| Malformed)
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], Malformed> {
        let (taken, rest) = self.0.split_at_checked(length).ok_or(Malformed)?;
        self.0 = rest;
        Ok(taken)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by a panic")]
mod tests {
    use fe2o3_amqp_types::primitives::Value;
    use whimbrel::{Message, wire::amqp};

    use super::*;
    use crate::fronts::amqp::codec::encode_message;

    #[test]
    fn what_is_well_formed_passes_and_a_cut_does_not() {
        let value = Value::List(vec![
            Value::String("x".repeat(300)),
            Value::Ulong(7),
            Value::Array(vec![Value::Int(1), Value::Int(-2)].into()),
            Value::Null,
        ]);
        let mut bytes = serde_amqp::to_vec(&value).unwrap();
        let length = bytes.len();
        bytes.push(0x40);
        assert_eq!(value_length(&bytes), Ok(length));
        for cut in 0..length {
            assert_eq!(value_length(&bytes[..cut]), Err(Malformed), "cut at {cut}");
        }
        let message = Message::telemetry("body").message_id("m").property("room", "attic");
        check_values(&encode_message(&amqp::encode(&message)).unwrap()).unwrap();
    }

    #[test]
    fn deep_nesting_and_empty_promises_are_refused() {
        assert_eq!(value_length(&[0; 60_000]), Err(Malformed));
        let mut nested = vec![0x45];
        for _ in 0..DEPTH + 1 {
            let mut outer = vec![0xd0];
            outer.extend((nested.len() as u32 + 4).to_be_bytes());
            outer.extend(1_u32.to_be_bytes());
            outer.append(&mut nested);
            nested = outer;
        }
        assert_eq!(value_length(&nested), Err(Malformed));
        // Four thousand million nulls in ten bytes.
        assert_eq!(value_length(&[0xf0, 0, 0, 0, 5, 0xff, 0xff, 0xff, 0xff, 0x40]), Err(Malformed));
        assert_eq!(value_length(&[0xd0, 0, 0, 0, 4, 0xff, 0xff, 0xff, 0xff]), Err(Malformed));
        // More inside than was counted.
        assert_eq!(value_length(&[0xc0, 3, 1, 0x40, 0x40]), Err(Malformed));
    }
}
