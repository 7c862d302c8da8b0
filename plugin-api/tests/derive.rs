//! The derives of the prelude do what serde's do, in a crate that does not name serde.

use std::{borrow::Cow, collections::BTreeMap};

use taskbay_plugin::{prelude::*, serde_json};

#[track_caller]
fn round_trip<T>(text: &str) -> T
where
    T: for<'de> Deserialize<'de> + Serialize,
{
    let value = serde_json::from_str(text).unwrap();
    assert_eq!(serde_json::to_string::<T>(&value).unwrap(), text);
    value
}

#[derive(Deserialize, Serialize, Debug, PartialEq)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct Settings {
    user_name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    nick: Option<String>,
    #[serde(with = "hex")]
    colour: u32,
}

impl Default for Settings {
    fn default() -> Self {
        Self { user_name: "nobody".to_owned(), nick: None, colour: 3 }
    }
}

mod hex {
    use taskbay_plugin::serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(super) fn serialize<S: Serializer>(n: &u32, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&format!("{n:x}"))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u32, D::Error> {
        let text = String::deserialize(deserializer)?;
        u32::from_str_radix(&text, 16).map_err(D::Error::custom)
    }
}

#[test]
fn attributes_of_items_and_fields_count() {
    let settings: Settings = round_trip(r#"{"userName":"ada","colour":"ff"}"#);
    assert_eq!(settings.colour, 255);
    assert_eq!(serde_json::from_str::<Settings>("{}").unwrap(), Settings::default());
    let error = serde_json::from_str::<Settings>(r#"{"x": 1}"#).unwrap_err().to_string();
    assert!(error.starts_with("unknown field `x`, expected one of `userName`, `nick`, `colour`"), "{error}");
    let error = serde_json::from_str::<Settings>("7").unwrap_err().to_string();
    assert!(error.starts_with("invalid type: integer `7`, expected struct Settings"), "{error}");
}

#[derive(Deserialize, Serialize, Debug, PartialEq)]
#[serde(tag = "kind", rename_all = "snake_case")]
enum Event<T> {
    Created {
        id: T,
    },
    #[serde(rename = "gone")]
    Removed(Settings),
    Nothing,
}

#[test]
fn enums_and_generic_types_work() {
    assert_eq!(round_trip::<Event<u8>>(r#"{"kind":"created","id":3}"#), Event::Created { id: 3 });
    round_trip::<Event<u8>>(r#"{"kind":"gone","userName":"ada","colour":"1"}"#);
    assert_eq!(round_trip::<Event<String>>(r#"{"kind":"nothing"}"#), Event::Nothing);
}

#[derive(Deserialize, Serialize, Debug, PartialEq)]
struct Tree {
    kids: Vec<Self>,
    #[serde(flatten)]
    rest: BTreeMap<String, Json>,
}

#[derive(Deserialize, Serialize, Debug, PartialEq)]
struct Pair(u32, String);

#[derive(Deserialize, Serialize, Debug, PartialEq)]
#[serde(transparent)]
struct Wrapper {
    inner: Pair,
}

#[derive(Deserialize, Serialize, Debug, PartialEq)]
struct Nothing;

#[derive(Deserialize, Serialize, Debug, PartialEq)]
struct Borrowed<'a, 'b> {
    #[serde(borrow)]
    plain: &'a str,
    other: Cow<'b, str>,
}

#[derive(Deserialize, Serialize, Debug, PartialEq, Clone)]
#[serde(try_from = "u8", into = "u8")]
struct Even(u8);

impl TryFrom<u8> for Even {
    type Error = String;

    fn try_from(n: u8) -> Result<Self, String> {
        if n.is_multiple_of(2) { Ok(Self(n)) } else { Err(format!("{n} is odd")) }
    }
}

impl From<Even> for u8 {
    fn from(even: Even) -> Self {
        even.0
    }
}

#[test]
fn types_of_all_shapes_work() {
    assert_eq!(round_trip::<Tree>(r#"{"kids":[{"kids":[],"z":1}],"a":null}"#).kids.len(), 1);
    round_trip::<Wrapper>(r#"[7,"x"]"#);
    round_trip::<Nothing>("null");
    let borrowed: Borrowed<'_, '_> = serde_json::from_str(r#"{"plain":"a","other":"b"}"#).unwrap();
    assert_eq!((borrowed.plain, &*borrowed.other), ("a", "b"));
    round_trip::<Even>("4");
    assert_eq!(serde_json::from_str::<Even>("3").unwrap_err().to_string(), "3 is odd");
}
