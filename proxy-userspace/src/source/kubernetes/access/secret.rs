use std::{fs, path::Path};

use base64::{Engine, engine::general_purpose::STANDARD};

use super::kubeconfig::Text;

/// Where a certificate or a key begins.
const PEM: &str = "-----BEGIN";

/// What stands in a field `NAME-data` or in the file that a field `NAME` points to; `None` if neither is given.
pub(super) fn bytes(name: &str, data: &Text, file: &Text) -> Result<Option<Vec<u8>>, String> {
    match (data.get(), file.get()) {
        (Some(_), Some(_)) => Err(format!("{name} and {name}-data are both given")),
        (Some(data), None) => decode(data).map(Some).map_err(|error| format!("{name}-data: {error}")),
        (None, Some(path)) => read(name, path).map(Some),
        (None, None) => Ok(None),
    }
}

/// Decodes base64 that may be wrapped. A `!!binary` of YAML is decoded already; kubectl wants what that holds to be
/// base64 once more, people write it without.
fn decode(data: &str) -> Result<Vec<u8>, String> {
    if data.trim_start().starts_with(PEM) {
        return Ok(data.into());
    }
    let line: String = data.chars().filter(|character| !character.is_ascii_whitespace()).collect();
    STANDARD.decode(line).map_err(|error| format!("is not base64: {error}"))
}

pub(super) fn read(name: &str, path: &str) -> Result<Vec<u8>, String> {
    fs::read(path).map_err(|error| format!("{name}: cannot read {path}: {error}"))
}

/// The token of a file, which is read anew each time, since it is replaced before it ends.
pub(super) fn token(path: impl AsRef<Path>) -> Result<String, String> {
    let path = path.as_ref();
    let text =
        fs::read_to_string(path).map_err(|error| format!("cannot read the token {}: {error}", path.display()))?;
    match text.trim() {
        "" => Err(format!("the token {} is empty", path.display())),
        token => Ok(token.to_owned()),
    }
}
