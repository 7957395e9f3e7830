//! Checks every count against the bytes that remain, before a collection is made.
//!
//! bincode hands a sequence's count to its visitor as a size hint. The wrappers here stand between bincode and the
//! types being read, at every depth, and refuse a count that is larger than the bytes left: every element takes one
//! byte at least, for no type of the engine puts elements without size into a sequence.

use std::cell::Cell;
use std::fmt;
use std::io;

use serde::de::{DeserializeSeed, Deserializer, EnumAccess, MapAccess, SeqAccess, VariantAccess, Visitor};

/// The bytes still to be read, shared by the reader, which takes from them, and the wrappers, which look at their length.
pub(super) struct Input<'de> {
    pub(super) rest: Cell<&'de [u8]>,
    /// The count that was refused and the bytes that remained, if one was.
    pub(super) refused: Cell<Option<(u64, usize)>>,
}

impl<'de> Input<'de> {
    fn take(&self, length: usize) -> io::Result<&'de [u8]> {
        let (taken, rest) = self.rest.get().split_at_checked(length).ok_or(io::ErrorKind::UnexpectedEof)?;
        self.rest.set(rest);
        Ok(taken)
    }

    fn check<E: serde::de::Error>(&self, count: Option<usize>) -> Result<(), E> {
        let remaining = self.rest.get().len();
        match count {
            Some(count) if count <= remaining => Ok(()),
            _ => {
                self.refused.set(Some((count.map_or(u64::MAX, |count| count as u64), remaining)));
                Err(E::custom("a count is beyond the bytes that remain"))
            }
        }
    }
}

/// Where bincode reads.
pub(super) struct Reader<'a, 'de> {
    pub(super) input: &'a Input<'de>,
}

impl io::Read for Reader<'_, '_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        self.read_exact(out).map(|()| out.len())
    }

    fn read_exact(&mut self, out: &mut [u8]) -> io::Result<()> {
        out.copy_from_slice(self.input.take(out.len())?);
        Ok(())
    }
}

impl<'de> bincode::BincodeRead<'de> for Reader<'_, 'de> {
    fn forward_read_str<V: Visitor<'de>>(&mut self, length: usize, visitor: V) -> bincode::Result<V::Value> {
        let text = std::str::from_utf8(self.input.take(length)?).map_err(bincode::ErrorKind::InvalidUtf8Encoding)?;
        visitor.visit_borrowed_str(text)
    }

    fn get_byte_buffer(&mut self, length: usize) -> bincode::Result<Vec<u8>> {
        Ok(self.input.take(length)?.to_vec())
    }

    fn forward_read_bytes<V: Visitor<'de>>(&mut self, length: usize, visitor: V) -> bincode::Result<V::Value> {
        visitor.visit_borrowed_bytes(self.input.take(length)?)
    }
}

/// Wraps a deserializer, a visitor, a seed or an access, so that whatever is below it is checked too.
pub(super) struct Counted<'a, 'de, T> {
    inner: T,
    input: &'a Input<'de>,
    /// Whether the elements that a visitor is about to see were counted by the bytes, not by a type.
    is_sequence: bool,
}

impl<'a, 'de, T> Counted<'a, 'de, T> {
    pub(super) fn new(inner: T, input: &'a Input<'de>) -> Self {
        Self { inner, input, is_sequence: false }
    }

    fn around<U>(&self, inner: U) -> Counted<'a, 'de, U> {
        Counted::new(inner, self.input)
    }

    fn around_sequence<U>(&self, inner: U) -> Counted<'a, 'de, U> {
        Counted { inner, input: self.input, is_sequence: true }
    }

    fn check<E: serde::de::Error>(&self, count: Option<usize>) -> Result<(), E> {
        if self.is_sequence { self.input.check(count) } else { Ok(()) }
    }
}

macro_rules! plain {
    ($($method:ident)*) => {
        $(#[inline]
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
            self.inner.$method(visitor)
        })*
    };
}

macro_rules! wrapped {
    ($($method:ident($($name:ident: $kind:ty),*) $around:ident)*) => {
        $(#[inline]
        fn $method<V: Visitor<'de>>(self, $($name: $kind,)* visitor: V) -> Result<V::Value, D::Error> {
            let visitor = self.$around(visitor);
            self.inner.$method($($name,)* visitor)
        })*
    };
}

impl<'de, D: Deserializer<'de>> Deserializer<'de> for Counted<'_, 'de, D> {
    type Error = D::Error;

    plain! {
        deserialize_any deserialize_bool deserialize_i8 deserialize_i16 deserialize_i32 deserialize_i64
        deserialize_i128 deserialize_u8 deserialize_u16 deserialize_u32 deserialize_u64 deserialize_u128
        deserialize_f32 deserialize_f64 deserialize_char deserialize_str deserialize_string deserialize_bytes
        deserialize_byte_buf deserialize_unit deserialize_identifier deserialize_ignored_any
    }

    wrapped! {
        deserialize_option() around
        deserialize_newtype_struct(name: &'static str) around
        deserialize_seq() around_sequence
        deserialize_tuple(length: usize) around
        deserialize_tuple_struct(name: &'static str, length: usize) around
        deserialize_map() around_sequence
        deserialize_struct(name: &'static str, fields: &'static [&'static str]) around
        deserialize_enum(name: &'static str, variants: &'static [&'static str]) around
    }

    #[inline]
    fn deserialize_unit_struct<V: Visitor<'de>>(self, name: &'static str, visitor: V) -> Result<V::Value, D::Error> {
        self.inner.deserialize_unit_struct(name, visitor)
    }

    fn is_human_readable(&self) -> bool {
        false
    }
}

impl<'de, V: Visitor<'de>> Visitor<'de> for Counted<'_, 'de, V> {
    type Value = V::Value;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.expecting(formatter)
    }

    fn visit_none<E: serde::de::Error>(self) -> Result<V::Value, E> {
        self.inner.visit_none()
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<V::Value, D::Error> {
        let deserializer = self.around(deserializer);
        self.inner.visit_some(deserializer)
    }

    fn visit_newtype_struct<D: Deserializer<'de>>(self, deserializer: D) -> Result<V::Value, D::Error> {
        let deserializer = self.around(deserializer);
        self.inner.visit_newtype_struct(deserializer)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, access: A) -> Result<V::Value, A::Error> {
        self.check(access.size_hint())?;
        let access = self.around(access);
        self.inner.visit_seq(access)
    }

    fn visit_map<A: MapAccess<'de>>(self, access: A) -> Result<V::Value, A::Error> {
        self.check(access.size_hint())?;
        let access = self.around(access);
        self.inner.visit_map(access)
    }

    fn visit_enum<A: EnumAccess<'de>>(self, access: A) -> Result<V::Value, A::Error> {
        let access = self.around(access);
        self.inner.visit_enum(access)
    }
}

impl<'de, S: DeserializeSeed<'de>> DeserializeSeed<'de> for Counted<'_, 'de, S> {
    type Value = S::Value;

    #[inline]
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<S::Value, D::Error> {
        let deserializer = self.around(deserializer);
        self.inner.deserialize(deserializer)
    }
}

impl<'de, A: SeqAccess<'de>> SeqAccess<'de> for Counted<'_, 'de, A> {
    type Error = A::Error;

    #[inline]
    fn next_element_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, A::Error> {
        let seed = self.around(seed);
        self.inner.next_element_seed(seed)
    }

    fn size_hint(&self) -> Option<usize> {
        self.inner.size_hint()
    }
}

impl<'de, A: MapAccess<'de>> MapAccess<'de> for Counted<'_, 'de, A> {
    type Error = A::Error;

    fn next_key_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, A::Error> {
        let seed = self.around(seed);
        self.inner.next_key_seed(seed)
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, A::Error> {
        let seed = self.around(seed);
        self.inner.next_value_seed(seed)
    }

    fn size_hint(&self) -> Option<usize> {
        self.inner.size_hint()
    }
}

impl<'a, 'de, A: EnumAccess<'de>> EnumAccess<'de> for Counted<'a, 'de, A> {
    type Error = A::Error;
    type Variant = Counted<'a, 'de, A::Variant>;

    fn variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<(S::Value, Self::Variant), A::Error> {
        let (value, variant) = self.inner.variant_seed(seed)?;
        Ok((value, Counted::new(variant, self.input)))
    }
}

impl<'de, A: VariantAccess<'de>> VariantAccess<'de> for Counted<'_, 'de, A> {
    type Error = A::Error;

    fn unit_variant(self) -> Result<(), A::Error> {
        self.inner.unit_variant()
    }

    fn newtype_variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<S::Value, A::Error> {
        let seed = self.around(seed);
        self.inner.newtype_variant_seed(seed)
    }

    fn tuple_variant<V: Visitor<'de>>(self, length: usize, visitor: V) -> Result<V::Value, A::Error> {
        let visitor = self.around(visitor);
        self.inner.tuple_variant(length, visitor)
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, A::Error> {
        let visitor = self.around(visitor);
        self.inner.struct_variant(fields, visitor)
    }
}
