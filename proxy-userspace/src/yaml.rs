//! YAML and JSON as kubectl and kube-proxy read them: lenient where a strict reader would refuse the file, with a word
//! about it.

use std::{
    collections::HashMap,
    fmt::{self, Write},
};

use serde::de::{self, DeserializeOwned, DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_saphyr::{DuplicateKeyPolicy, Error, Options};

/// A document of a YAML stream.
#[derive(Clone, Copy, Debug)]
pub struct Document<'a> {
    /// Counts from 1, as `line` does. Documents without content are not counted.
    pub number: usize,
    /// The line of the file that `text` begins with.
    pub line: usize,
    pub text: &'a str,
}

/// What a document says.
#[derive(Debug)]
pub struct Read<T> {
    pub value: T,
    /// Keys that stand several times in their mapping, by path. The last of each counts.
    pub repeated: Vec<String>,
}

/// The text of a file: UTF-8, or UTF-16 with a byte order mark (YAML 1.2.2, 5.2).
///
/// # Errors
/// The line that is not text.
pub fn text(bytes: Vec<u8>) -> Result<String, String> {
    let unit: fn([u8; 2]) -> u16 = match bytes.as_slice() {
        [0xff, 0xfe, ..] => u16::from_le_bytes,
        [0xfe, 0xff, ..] => u16::from_be_bytes,
        _ => {
            return String::from_utf8(bytes).map(without_mark).map_err(|error| {
                let valid = error.as_bytes().get(..error.utf8_error().valid_up_to()).unwrap_or_default();
                format!("line {}: is not UTF-8", 1 + valid.iter().filter(|&&byte| byte == b'\n').count())
            });
        }
    };
    let units = bytes.chunks(2).map(|pair| unit([pair[0], pair.get(1).copied().unwrap_or_default()]));
    let characters: Result<String, _> = char::decode_utf16(units).collect();
    characters.map(without_mark).map_err(|error| format!("is not UTF-16: {error}"))
}

/// A byte order mark means nothing; the YAML reader removes it at the very beginning only, the JSON reader does not.
fn without_mark(text: String) -> String {
    text.strip_prefix('\u{feff}').map(str::to_owned).unwrap_or(text)
}

/// The documents of a YAML stream. A line that begins with three hyphens ends a document wherever it stands: no scalar
/// may contain it (YAML 1.2.2, 9.1.2). Reading them one by one keeps the limits that guard against a hostile document
/// from adding up over a large file.
pub fn documents(text: &str) -> Vec<Document<'_>> {
    let mut documents = Vec::new();
    let (mut begin, mut begin_line, mut offset) = (0, 1, 0);
    let mut cut = |begin: usize, end: usize, line: usize| {
        let text = text.get(begin..end).unwrap_or_default();
        let is_blank = |line: &str| {
            let line = line.trim();
            line.is_empty() || line.starts_with('#') || line == "---" || line == "..."
        };
        if !text.lines().all(is_blank) {
            documents.push(Document { number: documents.len() + 1, line, text });
        }
    };
    for (at, line) in text.split_inclusive('\n').enumerate() {
        let marker =
            line.strip_prefix("---").is_some_and(|rest| rest.is_empty() || rest.starts_with(char::is_whitespace));
        if marker && offset > begin {
            cut(begin, offset, begin_line);
            (begin, begin_line) = (offset, at + 1);
        }
        offset += line.len();
    }
    cut(begin, offset, begin_line);
    documents
}

/// Reads the first document of a file, as kube-proxy does with its configuration and client-go with a kubeconfig.
///
/// # Errors
/// The first mistake in it. A file without content is read as `null`.
pub fn read_first<T: DeserializeOwned>(text: &str) -> Result<Read<T>, Error> {
    read(documents(text).first().map_or("null", |document| document.text), Options::default())
}

/// Reads a document.
///
/// # Errors
/// The first mistake in it; a repeated key is none.
pub fn read<T: DeserializeOwned>(text: &str, mut options: Options) -> Result<Read<T>, Error> {
    let refused = match serde_saphyr::from_str_with_options(text, options.clone()) {
        Ok(value) => return Ok(Read { value, repeated: Vec::new() }),
        Err(refused) => refused,
    };
    // Whatever is wrong with a value, another one may count.
    options.duplicate_keys = DuplicateKeyPolicy::PassThrough;
    let mut keys = Keys::default();
    let seen =
        serde_saphyr::with_deserializer_from_str_with_options(text, options.clone(), |yaml| keys.deserialize(yaml));
    if seen.is_err() || keys.repeated.is_empty() {
        return Err(refused);
    }
    options.duplicate_keys = DuplicateKeyPolicy::LastWins;
    let value = serde_saphyr::from_str_with_options(text, options)?;
    Ok(Read { value, repeated: keys.repeated })
}

/// The repeated keys of a JSON text, none if it is not JSON. Readers of JSON take the last value without a word.
pub fn repeated_in_json(text: &str) -> Vec<String> {
    let mut keys = Keys::default();
    match keys.deserialize(&mut serde_json::Deserializer::from_str(text)) {
        Ok(()) => keys.repeated,
        Err(_) => Vec::new(),
    }
}

/// A sentence about repeated keys; `None` if there are none.
pub fn about_repeated(keys: &[String]) -> Option<String> {
    (!keys.is_empty()).then(|| format!("set more than once, and the last value counts: {}", keys.join(", ")))
}

/// Looks for keys that stand several times in a mapping.
#[derive(Debug, Default)]
struct Keys {
    /// Where the search is.
    path: String,
    repeated: Vec<String>,
}

impl Keys {
    /// Goes down by `step`, and comes back.
    fn below<T>(&mut self, step: fmt::Arguments<'_>, search: impl FnOnce(&mut Self) -> T) -> T {
        let length = self.path.len();
        // Writing into a string cannot fail.
        let _ = self.path.write_fmt(step);
        let found = search(self);
        self.path.truncate(length);
        found
    }
}

impl<'de> DeserializeSeed<'de> for &mut Keys {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, reader: D) -> Result<(), D::Error> {
        reader.deserialize_any(self)
    }
}

/// Scalars hold no keys.
macro_rules! scalars {
    ($($visit:ident: $type:ty),*) => {
        $(fn $visit<E: de::Error>(self, _: $type) -> Result<(), E> {
            Ok(())
        })*
    };
}

impl<'de> Visitor<'de> for &mut Keys {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("anything")
    }

    scalars! { visit_bool: bool, visit_i64: i64, visit_i128: i128, visit_u64: u64, visit_u128: u128, visit_f64: f64, visit_str: &str, visit_bytes: &[u8] }

    fn visit_unit<E: de::Error>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_none<E: de::Error>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_some<D: Deserializer<'de>>(self, reader: D) -> Result<(), D::Error> {
        reader.deserialize_any(self)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        for at in 0.. {
            if self.below(format_args!("[{at}]"), |keys| items.next_element_seed(keys))?.is_none() {
                break;
            }
        }
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<(), A::Error> {
        // How often each key stands there.
        let mut seen: HashMap<String, usize> = HashMap::new();
        while let Some(key) = entries.next_key::<String>()? {
            let dot = if self.path.is_empty() { "" } else { "." };
            self.below(format_args!("{dot}{key}"), |keys| {
                let count = seen.entry(key.clone()).or_default();
                *count += 1;
                if *count == 2 {
                    keys.repeated.push(keys.path.clone());
                }
                entries.next_value_seed(keys)
            })?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn of_a_repeated_key_the_last_value_counts_and_its_path_is_named() {
        for (text, value, repeated) in [
            ("a: 1\nb: 2\n", json!({"a": 1, "b": 2}), &[][..]),
            ("a: 1\na: 2\na: 3\n", json!({"a": 3}), &["a"]),
            ("a: {b: 1, c: 2, b: 3}\nd: 4\n", json!({"a": {"b": 3, "c": 2}, "d": 4}), &["a.b"]),
            (
                "a:\n- b: 1\n- {b: 2, b: {c: 1, c: 2}}\n",
                json!({"a": [{"b": 1}, {"b": {"c": 2}}]}),
                &["a[1].b", "a[1].b.c"],
            ),
            ("a: {b: 1}\nc: 2\na: {d: 3}\n", json!({"a": {"d": 3}, "c": 2}), &["a"]),
            ("\"a\": yes\na: 'no'\n", json!({"a": "no"}), &["a"]),
            // An own key beside a merged one stands once.
            ("x: &x {a: 1, b: 2}\ny: {<<: *x, a: 3}\n", json!({"x": {"a": 1, "b": 2}, "y": {"a": 3, "b": 2}}), &[]),
            ("x: &x {a: 1, a: 2}\ny: *x\n", json!({"x": {"a": 2}, "y": {"a": 2}}), &["x.a", "y.a"]),
            (
                "{\"a\": [true, null, 1.5, -1, 18446744073709551615, \"\"], \"b\": {}, \"b\": []}",
                json!({"a": [true, null, 1.5, -1, u64::MAX, ""], "b": []}),
                &["b"],
            ),
        ] {
            let read: Read<Value> = read(text, Options::default()).unwrap();
            assert_eq!(
                (&read.value, read.repeated.as_slice()),
                (&value, repeated.iter().map(|&key| key.to_owned()).collect::<Vec<_>>().as_slice()),
                "{text}"
            );
            if text.starts_with('{') {
                assert_eq!(repeated_in_json(text), read.repeated);
            }
        }
        assert_eq!(about_repeated(&[]), None);
        assert_eq!(
            about_repeated(&["a".into(), "b[0].c".into()]).unwrap(),
            "set more than once, and the last value counts: a, b[0].c"
        );
    }

    #[test]
    fn the_first_document_with_content_is_read() {
        for text in ["a: 1", "# c\n---\n\n---\na: 1\n---\nb: [", "\r\n---\r\na: 1\r\n...\r\n", "a: 1\n--- # next\na: 2"]
        {
            assert_eq!(read_first::<Value>(text).unwrap().value, json!({"a": 1}), "{text}");
        }
        for text in ["", "---\n", "# nothing\n"] {
            assert_eq!(read_first::<Value>(text).unwrap().value, Value::Null, "{text}");
        }
        assert!(read_first::<Value>("a: [").is_err());
    }

    #[test]
    fn text_may_be_utf_16() {
        let wide = |unit: fn(u16) -> [u8; 2]| "\u{feff}a: \u{1f600}".encode_utf16().flat_map(unit).collect::<Vec<u8>>();
        for bytes in
            [wide(u16::to_le_bytes), wide(u16::to_be_bytes), "\u{feff}a: \u{1f600}".into(), "a: \u{1f600}".into()]
        {
            assert_eq!(text(bytes).unwrap(), "a: \u{1f600}");
        }
        assert_eq!(text(b"a\nb\xff".to_vec()).unwrap_err(), "line 2: is not UTF-8");
        assert!(text(vec![0xff, 0xfe, 0x00, 0xd8, 0x41]).unwrap_err().starts_with("is not UTF-16"));
    }
}
