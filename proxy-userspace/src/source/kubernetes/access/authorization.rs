use base64::{Engine, engine::general_purpose::STANDARD};
use http::{HeaderValue, Uri};
use hyper_util::client::proxy::matcher::Matcher;

use super::{kubeconfig::User, secret};

/// What a user is known by in the header of that name. The token of a file comes before the one beside it, which stands
/// in for it while it cannot be read.
pub(super) fn authorization(user: &User) -> Result<Option<HeaderValue>, String> {
    let token = match (user.token_file.get().map(secret::token), user.token.get()) {
        (Some(Ok(token)), _) => Some(token),
        (_, Some(token)) => Some(token.to_owned()),
        (Some(Err(reason)), None) => return Err(reason),
        (None, None) => None,
    };
    match (token, user.username.get()) {
        (Some(_), Some(_)) => Err("a token and a username are both given".into()),
        (Some(token), None) => bearer(&token).map(Some),
        (None, Some(name)) => {
            let pair = format!("{name}:{}", user.password.get().unwrap_or_default());
            header(&format!("Basic {}", STANDARD.encode(pair))).map(Some)
        }
        (None, None) => Ok(None),
    }
}

pub(super) fn bearer(token: &str) -> Result<HeaderValue, String> {
    header(&format!("Bearer {token}"))
}

/// The name and password before the host of a URL; Go's `net/http` sends them, and nothing else then.
pub(super) fn in_url(url: &str) -> Option<HeaderValue> {
    // The parser of proxies knows what may be escaped there, and how.
    let parsed = Matcher::builder().all(url).build().intercept(&Uri::from_static("http://any"))?;
    parsed.basic_auth().cloned()
}

fn header(text: &str) -> Result<HeaderValue, String> {
    let mut value = HeaderValue::try_from(text).map_err(|_| "the token has characters that none can have")?;
    value.set_sensitive(true);
    Ok(value)
}
