//! Reading structs by the names of their fields alone.
//!
//! serde's derived structs take a sequence too, element by element: `[1, 2]` would fill the first two fields of whatever
//! struct is asked for. An entity is somebody else's JSON, where that is never meant, at no depth.

use std::fmt;

use serde::de::{
    DeserializeSeed, Deserializer, EnumAccess, Error, MapAccess, SeqAccess, Unexpected, VariantAccess, Visitor,
};

/// Whatever deserializer, visitor, seed or access of serde, with structs read by name in all that it leads to.
pub(crate) struct ByName<T> {
    inner: T,
    /// A visitor that a struct's fields are given to.
    wants_struct: bool,
}

impl<T> ByName<T> {
    pub(crate) fn new(inner: T) -> Self {
        Self { inner, wants_struct: false }
    }

    fn of_struct(inner: T) -> Self {
        Self { inner, wants_struct: true }
    }
}

macro_rules! forward {
    ($($method:ident($($name:ident: $type:ty),*);)*) => {
        $(fn $method<V: Visitor<'de>>(self $(, $name: $type)*, visitor: V) -> Result<V::Value, Self::Error> {
            self.inner.$method($($name,)* ByName::new(visitor))
        })*
    };
}

impl<'de, D: Deserializer<'de>> Deserializer<'de> for ByName<D> {
    type Error = D::Error;

    forward! {
        deserialize_any();
        deserialize_bool();
        deserialize_i8();
        deserialize_i16();
        deserialize_i32();
        deserialize_i64();
        deserialize_i128();
        deserialize_u8();
        deserialize_u16();
        deserialize_u32();
        deserialize_u64();
        deserialize_u128();
        deserialize_f32();
        deserialize_f64();
        deserialize_char();
        deserialize_str();
        deserialize_string();
        deserialize_bytes();
        deserialize_byte_buf();
        deserialize_option();
        deserialize_unit();
        deserialize_unit_struct(name: &'static str);
        deserialize_newtype_struct(name: &'static str);
        deserialize_seq();
        deserialize_tuple(len: usize);
        deserialize_tuple_struct(name: &'static str, len: usize);
        deserialize_map();
        deserialize_enum(name: &'static str, variants: &'static [&'static str]);
        deserialize_identifier();
        deserialize_ignored_any();
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Self::Error> {
        self.inner.deserialize_struct(name, fields, ByName::of_struct(visitor))
    }

    fn is_human_readable(&self) -> bool {
        self.inner.is_human_readable()
    }
}

macro_rules! visit {
    ($($method:ident($type:ty);)*) => {
        $(fn $method<E: Error>(self, value: $type) -> Result<V::Value, E> {
            self.inner.$method(value)
        })*
    };
}

impl<'de, V: Visitor<'de>> Visitor<'de> for ByName<V> {
    type Value = V::Value;

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.expecting(out)
    }

    visit! {
        visit_bool(bool);
        visit_i8(i8);
        visit_i16(i16);
        visit_i32(i32);
        visit_i64(i64);
        visit_i128(i128);
        visit_u8(u8);
        visit_u16(u16);
        visit_u32(u32);
        visit_u64(u64);
        visit_u128(u128);
        visit_f32(f32);
        visit_f64(f64);
        visit_char(char);
        visit_str(&str);
        visit_borrowed_str(&'de str);
        visit_string(String);
        visit_bytes(&[u8]);
        visit_borrowed_bytes(&'de [u8]);
        visit_byte_buf(Vec<u8>);
    }

    fn visit_none<E: Error>(self) -> Result<V::Value, E> {
        self.inner.visit_none()
    }

    fn visit_unit<E: Error>(self) -> Result<V::Value, E> {
        self.inner.visit_unit()
    }

    fn visit_some<D: Deserializer<'de>>(self, inner: D) -> Result<V::Value, D::Error> {
        self.inner.visit_some(ByName::new(inner))
    }

    fn visit_newtype_struct<D: Deserializer<'de>>(self, inner: D) -> Result<V::Value, D::Error> {
        self.inner.visit_newtype_struct(ByName::new(inner))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, inner: A) -> Result<V::Value, A::Error> {
        if self.wants_struct {
            return Err(A::Error::invalid_type(Unexpected::Seq, &self));
        }
        self.inner.visit_seq(ByName::new(inner))
    }

    fn visit_map<A: MapAccess<'de>>(self, inner: A) -> Result<V::Value, A::Error> {
        self.inner.visit_map(ByName::new(inner))
    }

    fn visit_enum<A: EnumAccess<'de>>(self, inner: A) -> Result<V::Value, A::Error> {
        self.inner.visit_enum(ByName::new(inner))
    }
}

impl<'de, S: DeserializeSeed<'de>> DeserializeSeed<'de> for ByName<S> {
    type Value = S::Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<S::Value, D::Error> {
        self.inner.deserialize(ByName::new(deserializer))
    }
}

impl<'de, A: SeqAccess<'de>> SeqAccess<'de> for ByName<A> {
    type Error = A::Error;

    fn next_element_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, A::Error> {
        self.inner.next_element_seed(ByName::new(seed))
    }

    fn size_hint(&self) -> Option<usize> {
        self.inner.size_hint()
    }
}

impl<'de, A: MapAccess<'de>> MapAccess<'de> for ByName<A> {
    type Error = A::Error;

    fn next_key_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, A::Error> {
        // A key is a name: nothing in it is a struct.
        self.inner.next_key_seed(seed)
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, A::Error> {
        self.inner.next_value_seed(ByName::new(seed))
    }

    fn size_hint(&self) -> Option<usize> {
        self.inner.size_hint()
    }
}

impl<'de, A: EnumAccess<'de>> EnumAccess<'de> for ByName<A> {
    type Error = A::Error;
    type Variant = ByName<A::Variant>;

    fn variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<(S::Value, Self::Variant), A::Error> {
        let (value, variant) = self.inner.variant_seed(seed)?;
        Ok((value, ByName::new(variant)))
    }
}

impl<'de, A: VariantAccess<'de>> VariantAccess<'de> for ByName<A> {
    type Error = A::Error;

    fn unit_variant(self) -> Result<(), A::Error> {
        self.inner.unit_variant()
    }

    fn newtype_variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<S::Value, A::Error> {
        self.inner.newtype_variant_seed(ByName::new(seed))
    }

    fn tuple_variant<V: Visitor<'de>>(self, len: usize, visitor: V) -> Result<V::Value, A::Error> {
        self.inner.tuple_variant(len, ByName::new(visitor))
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, A::Error> {
        self.inner.struct_variant(fields, ByName::of_struct(visitor))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::collections::BTreeMap;

    use serde::Deserialize;
    use serde_json::value::RawValue;

    use crate::test;

    #[derive(Deserialize, PartialEq, Debug)]
    struct Point {
        x: u32,
        y: u32,
    }

    #[derive(Deserialize, PartialEq, Debug)]
    struct Pair(u32, u32);

    #[derive(Deserialize, PartialEq, Debug)]
    enum Shape {
        Dot,
        Circle { at: Point, r: u32 },
        Square(Point),
    }

    fn read<T: serde::de::DeserializeOwned>(json: &str) -> Result<T, String> {
        let event = test::event("a.b").entity_bytes(json).build::<T>();
        event.entity().map_err(|error| format!("{:?}", std::error::Error::source(&error).map(ToString::to_string)))
    }

    fn refused<T: serde::de::DeserializeOwned + std::fmt::Debug>(json: &str) {
        let why = read::<T>(json).unwrap_err();
        assert!(why.contains("invalid type: sequence, expected struct"), "{json}: {why}");
    }

    #[test]
    fn an_array_fills_no_struct_wherever_it_is() {
        refused::<Point>("[1,2]");
        refused::<Point>("[]");
        refused::<Option<Point>>("[1,2]");
        refused::<Vec<Point>>("[[1,2]]");
        refused::<BTreeMap<String, Point>>(r#"{"a":[1,2]}"#);
        refused::<Shape>(r#"{"Square":[1,2]}"#);
        refused::<Shape>(r#"{"Circle":[{"x":1,"y":2},3]}"#);
    }

    #[test]
    fn everything_else_is_read_as_before() {
        let point = || Point { x: 1, y: 2 };
        assert_eq!(read(r#"{"x":1,"y":2,"z":[[]]}"#), Ok(point()));
        assert_eq!(read("null"), Ok(None::<Point>));
        assert_eq!(read("[1,2]"), Ok(Pair(1, 2)));
        assert_eq!(read(r#"[[1,2],{"x":1,"y":2}]"#), Ok((Pair(1, 2), point())));
        assert_eq!(read(r#"{"7":{"x":1,"y":2}}"#), Ok(BTreeMap::from([(7, point())])));
        assert_eq!(read(r#""Dot""#), Ok(Shape::Dot));
        assert_eq!(read(r#"{"Circle":{"at":{"x":1,"y":2},"r":3}}"#), Ok(Shape::Circle { at: point(), r: 3 }));
        assert_eq!(read(r#"[{"a":1.5},"é",-3]"#), Ok(serde_json::json!([{"a":1.5},"é",-3])));
        let raw: Box<RawValue> = read("[1, 2.50]").unwrap();
        assert_eq!(raw.get(), "[1, 2.50]");
        assert!(read::<Point>(r#"{"x":1,"y":2} 3"#).is_err(), "nothing may follow");
    }
}
