use std::net::Ipv6Addr;

use http::Uri;

/// The address of an API server: a URL, whose path is a prefix, or a host with or without a port; `None` if it is
/// neither. `scheme` is that of an address without one. A name and a password are left out.
pub(in super::super) fn parse(text: &str, scheme: &str) -> Option<Uri> {
    let text = text.trim();
    let full = match text.parse::<Ipv6Addr>() {
        Ok(bare) => format!("{scheme}://[{bare}]"),
        Err(_) if text.contains("://") => text.to_owned(),
        Err(_) if text.trim_end_matches('/').contains('/') => return None,
        Err(_) => format!("{scheme}://{text}"),
    };
    let without_query = full.split(['?', '#']).next().unwrap_or_default();
    let address: Uri = without_query.parse().ok()?;
    let host = address.host().filter(|host| !host.is_empty())?;
    // A port that is no number from 0 to 65535 is no port for `Uri`.
    let after_host = address.authority()?.as_str().rsplit_once(host)?.1;
    let has_port = after_host.is_empty() || after_host == ":" || address.port_u16().is_some();
    if !has_port || !matches!(address.scheme_str(), Some("http" | "https")) {
        return None;
    }
    let Some((_, authority)) = address.authority()?.as_str().rsplit_once('@') else { return Some(address) };
    let mut parts = address.clone().into_parts();
    parts.authority = Some(authority.parse().ok()?);
    Uri::from_parts(parts).ok()
}

/// The host without the brackets of IPv6, and the port, which is the scheme's own if none is given.
pub(in super::super) fn host_and_port(address: &Uri) -> (&str, u16) {
    let host = address.host().unwrap_or_default();
    let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    let default = if address.scheme_str() == Some("https") { 443 } else { 80 };
    (host, address.port_u16().unwrap_or(default))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_a_url_or_a_host() {
        for (text, expected) in [
            ("https://192.0.2.1:6443", "https://192.0.2.1:6443/ 192.0.2.1 6443"),
            ("https://h", "https://h/ h 443"),
            ("HTTPS://h/", "https://h/ h 443"),
            ("http://h:", "http://h:/ h 80"),
            ("https://name:password@h:1/a", "https://h:1/a h 1"),
            ("https://h/a/b/?x=1#f", "https://h/a/b/ h 443"),
            ("https://[fd00::1]:6443", "https://[fd00::1]:6443/ fd00::1 6443"),
            ("[fd00::1]:6443", "http://[fd00::1]:6443/ fd00::1 6443"),
            ("fd00::1", "http://[fd00::1]/ fd00::1 80"),
            ("192.0.2.1", "http://192.0.2.1/ 192.0.2.1 80"),
            (" localhost:8080/ ", "http://localhost:8080/ localhost 8080"),
            ("api.example", "http://api.example/ api.example 80"),
        ] {
            let address = parse(text, "http").unwrap_or_else(|| panic!("{text}"));
            let (host, port) = host_and_port(&address);
            assert_eq!(format!("{address} {host} {port}"), expected, "{text}");
        }
        assert_eq!(parse("192.0.2.1:6443", "https").unwrap().to_string(), "https://192.0.2.1:6443/");
        for text in
            ["", "/", "https://", "ftp://h", "h/p", "h:443/x", "https://h:99999", "https://h:x", "a b", "unix:///s"]
        {
            assert_eq!(parse(text, "https"), None, "{text}");
        }
    }
}
