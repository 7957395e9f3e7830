//! The one door to bincode: what structured bytes look like on the wire and on the disk.
//!
//! Integers are fixed in width and little-endian; an option is one byte and its value; a sequence, a string or a run of
//! bytes is a u64 count and its elements; an enum is a u32 and its fields. Decoding works from slices only, holds a
//! limit, takes no more memory than the bytes at hand can fill, and rejects what is left over. This module knows no
//! type of its callers.

mod counted;

use std::cell::Cell;

use bincode::Options;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// The longest encoding that [`decode`] looks at, in bytes. Payloads of entries do not pass through here, so nothing
/// honest comes near.
pub const MAX_ENCODED_BYTES: usize = 16 << 20;

/// Why bytes are not an encoding of the type asked for.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum CodecError {
    /// More bytes than [`MAX_ENCODED_BYTES`].
    #[error("{bytes} bytes of structured data are more than the limit of {limit}", limit = MAX_ENCODED_BYTES)]
    TooLong {
        /// How many there were.
        bytes: usize,
    },
    /// The bytes end before the value does.
    #[error("the bytes end before the value does")]
    Truncated,
    /// The value ends before the bytes do.
    #[error("{bytes} bytes follow the value")]
    TrailingBytes {
        /// How many are left over.
        bytes: usize,
    },
    /// A sequence names more elements than the bytes that remain could hold. No memory was taken for it.
    #[error("a sequence claims {count} elements where {remaining} bytes remain")]
    CountBeyondBytes {
        /// The count named.
        count: u64,
        /// The bytes left to hold them, of which every element takes one at least.
        remaining: usize,
    },
    /// A value that its type does not have: a bool of 2, an unknown variant, text that is not UTF-8.
    #[error("{0}")]
    Invalid(String),
}

fn options() -> impl Options + Copy {
    bincode::DefaultOptions::new().with_fixint_encoding().with_little_endian().reject_trailing_bytes()
}

/// The bytes of `value`.
///
/// # Panics
/// If the type cannot be encoded at all (a sequence of unknown length): a mistake of the program, never of its input.
pub fn encode<T: Serialize + ?Sized>(value: &T) -> Vec<u8> {
    let mut bytes = Vec::new();
    encode_into(value, &mut bytes);
    bytes
}

/// Appends the bytes of `value` to `bytes`, in one pass.
///
/// # Panics
/// As [`encode`].
pub fn encode_into<T: Serialize + ?Sized>(value: &T, bytes: &mut Vec<u8>) {
    options().serialize_into(bytes, value).expect("the engine's types have a known length, and memory takes all bytes");
}

/// Reads a value that takes up all of `bytes`.
///
/// # Errors
/// Says how `bytes` fail to be an encoding of `T`; what was read is dropped.
pub fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, CodecError> {
    if bytes.len() > MAX_ENCODED_BYTES {
        return Err(CodecError::TooLong { bytes: bytes.len() });
    }
    let input = counted::Input { rest: Cell::new(bytes), refused: Cell::new(None) };
    let mut inner = bincode::Deserializer::with_bincode_read(counted::Reader { input: &input }, options());
    let result = T::deserialize(counted::Counted::new(&mut inner, &input));
    match result {
        Ok(value) => match input.rest.get().len() {
            0 => Ok(value),
            bytes => Err(CodecError::TrailingBytes { bytes }),
        },
        Err(error) => Err(match (input.refused.take(), *error) {
            (Some((count, remaining)), _) => CodecError::CountBeyondBytes { count, remaining },
            (None, bincode::ErrorKind::Io(_)) => CodecError::Truncated,
            (None, other) => CodecError::Invalid(other.to_string()),
        }),
    }
}
